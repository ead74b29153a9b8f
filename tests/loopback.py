"""A server on this machine: a Hub that keeps what it is sent, and files for whoever asks."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(files=None):
    """Yield the address of a server of `files`, and what came: ``requests`` and uploaded ``files``.

    `files` are path -> bytes, or path -> (type, bytes) where the type is not JSON.
    """
    seen = {"requests": [], "files": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(self._file())

        def do_HEAD(self):
            self._send(self._file(), body=False)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen["requests"].append((self.path, self.headers["Authorization"], body))
            self._send(json.dumps(_answer(self.path, body, address, seen["files"])).encode())

        def _file(self):
            seen["requests"].append((self.path, self.headers["Authorization"], ""))
            return (files or {}).get(self.path.partition("?")[0])

        def _send(self, data, body=True):
            kind, data = data if isinstance(data, tuple) else ("application/json", data)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body:
                self.wfile.write(data or b"")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, seen
    finally:
        server.shutdown()
        server.server_close()


def _answer(path, body, address, uploaded):
    """Return what the Hub answers to a request of `push`; files go to `uploaded`."""
    if path == "/api/validate-yaml":
        return {"errors": [], "warnings": []}
    if path == "/api/repos/create":
        return {"url": f"{address}/me/model"}
    if "/preupload/" in path:
        paths = [file["path"] for file in json.loads(body)["files"]]
        return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in paths]}
    for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
            uploaded[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
    return {"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/me/model/commit/{'0' * 40}"}
