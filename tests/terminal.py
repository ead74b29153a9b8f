"""Commands at a pseudo-terminal, as a user has them before them."""

import os
import select
import subprocess
import sys

import pytest
from patience import Watch


class Terminal:
    """A command at a terminal."""

    def __init__(self, *arguments, environment=None):
        self.screen, child = pytest.importorskip("pty").openpty()
        command = [sys.executable, "-W", "ignore", "-m", "sftplug", *map(str, arguments)]
        environment = {**os.environ, **(environment or {}), "PYTHONFAULTHANDLER": "1"}
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)

    def type(self, text):
        os.write(self.screen, text.encode())

    def until(self, end):
        """Return what is shown up to `end`, which must be the last of it."""
        shown, watch = "", Watch([self.process.pid])
        while not shown.endswith(end):
            shown += self._read(watch, lambda shown=shown: f"no {end!r} after {shown!r}")
        return shown.removesuffix(end)

    def end(self):
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        os.close(self.screen)

    def _read(self, watch, missing):
        while not select.select([self.screen], [], [], 1)[0]:
            assert not (fault := watch.fault()), f"{missing()}: {fault}"
        return os.read(self.screen, 4096).decode().replace("\r\n", "\n")
