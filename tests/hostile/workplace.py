"""One process for many hostile inputs: it says what each came to, how long that took and how much memory."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

_LIMIT, _PATIENCE = 60.0, 600.0
"""Seconds of processor time after which an input counts as endless and the process is ended, and of any time."""


class Workplace:
    """Runs ``function(argument)`` of a module in a process of its own, which outlives the inputs that behave."""

    def __init__(self, module: str) -> None:
        self._module, self._process = module, None

    def run(self, argument):
        """Return (outcome, seconds of processor time, megabytes); the outcome of what does not end is ``endless``."""
        self._process = self._process or self._started()
        over = threading.Event()
        threading.Thread(target=_end, args=(self._process, over), daemon=True).start()
        try:
            self._process.stdin.write(json.dumps(argument) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            over.set()
        if line:
            return json.loads(line)
        self.close()
        return ["endless", _LIMIT, 0]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _started(self):
        folder = str(Path(__file__).parent)
        start = f"import sys; sys.path[:0] = [{folder!r}]; from {self._module} import attempt; "
        start += "from workplace import serve; serve(attempt)"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", start], **pipes)


def _end(process, over: threading.Event) -> None:
    """Kill `process` when it takes too long; on a machine that is busy with others it may well take a while."""
    begun, started = time.monotonic(), _spent(process.pid)
    while not over.wait(0.5):
        if time.monotonic() - begun > _PATIENCE or _spent(process.pid) - started > _LIMIT:
            process.kill()
            return


def _spent(process: int) -> float:
    """Return the processor time of a process, as far as the system tells it."""
    with contextlib.suppress(OSError):
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def serve(attempt) -> None:
    """Answer every line of the input."""
    children = _Children()
    children.start()
    for line in sys.stdin:
        argument, before, started = json.loads(line), _held(), _seconds()
        children.most = 0.0
        outcome = attempt(argument)
        print(json.dumps([outcome, _seconds() - started, _status("VmHWM") - before + children.most]), flush=True)


class _Children(threading.Thread):
    """Looks twenty times a second how much memory the processes hold that this one started."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0

    def run(self) -> None:
        while True:
            held = sum(_status("VmRSS", process) for process in self._processes())
            self.most = max(self.most, held)
            time.sleep(0.05)

    def _processes(self):
        for listed in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it may have ended
                yield from listed.read_text().split()


def _held() -> float:
    """Return how many megabytes this process holds; its peak is counted from here on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str, process: str = "self") -> float:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def _seconds() -> float:
    """Return the processor time of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])
