"""Commands at a pseudo-terminal, as a user has them before them."""

import os
import re
import select
import subprocess
import sys

import pytest
from patience import Watch, wait_for


class Terminal:
    """A command at a terminal of its own, which Ctrl-C and closing the window reach."""

    def __init__(self, *arguments, environment=None):
        self.screen, child = pytest.importorskip("pty").openpty()
        command = [sys.executable, "-W", "ignore", "-m", "sftplug", *map(str, arguments)]
        environment = {**os.environ, **(environment or {}), "PYTHONFAULTHANDLER": "1"}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), child)
        self.process = subprocess.Popen(
            command, **streams, env=environment, start_new_session=True, preexec_fn=_take_terminal
        )
        os.close(child)
        self.shown = ""
        """All that was shown so far."""

    def type(self, text):
        os.write(self.screen, text.encode())

    def until(self, end):
        """Return what is shown up to `end`, which must be the last of it."""
        return self._until(lambda shown: shown.endswith(end), end).removesuffix(end)

    def until_seen(self, text):
        """Wait until `text` is shown."""
        self._until(lambda shown: text in shown, text)

    def rest(self):
        """Return the screen as it is when the command has ended, a line an item, and whether the cursor is there."""
        self._until(lambda shown: shown.endswith("\0"), "the end")
        self.process.wait()
        return drawn(self.shown), self.shown.rfind("\x1b[?25h") >= self.shown.rfind("\x1b[?25l")

    def close(self):
        """Close the window, and return the exit code."""
        os.close(self.screen)
        self.screen = None
        return wait_for(self.process)

    def end(self):
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        if self.screen is not None:
            os.close(self.screen)

    def _until(self, is_there, what):
        shown, watch = "", Watch([self.process.pid])
        while not is_there(shown):
            while not select.select([self.screen], [], [], 1)[0]:
                assert not (fault := watch.fault()), f"no {what!r} after {shown!r}: {fault}"
            try:
                new = os.read(self.screen, 4096).decode(errors="replace")
            except OSError:  # on Linux, the end
                new = "\0"
            shown += new.replace("\r\n", "\n")
            self.shown += new.replace("\0", "")
            assert "\0" not in new or what == "the end", f"no {what!r} in {shown!r}"
        return shown


def _take_terminal():
    """Make the terminal that of this session: only then does Ctrl-C come as a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def drawn(output):
    """Return the lines that a terminal shows after `output`: text, carriage returns, moves upwards, erased lines."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", output):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece.endswith("A") and piece.startswith("\x1b"):
            row = max(row - int(piece[2:-1] or 1), 0)
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif not piece.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]
