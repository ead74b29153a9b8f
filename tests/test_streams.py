"""Whoever reads what is printed may be gone: of a pipe that is told, of a terminal it is not."""

import os
import signal
import subprocess
import sys

import pytest

LOOK = """
import sys
from sftplug.util.streams import let_go

gone = [sorted(let_go()), sorted(let_go())]
print("to nobody", flush=True)
print("to nobody", file=sys.stderr, flush=True)
open(sys.argv[1], "w").write(repr(gone))
"""


def looked(tmp_path, **streams):
    """Return what `let_go` says, the first time and the second, of these streams."""
    subprocess.run([sys.executable, "-c", LOOK, str(tmp_path / "said")], check=True, **streams)
    return (tmp_path / "said").read_text()


@pytest.fixture
def unread():
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def closed():
    """A terminal that was closed."""
    screen, child = pytest.importorskip("pty").openpty()
    os.close(screen)
    yield child
    os.close(child)


def test_a_pipe_without_a_reader_is_told_once(tmp_path, unread):
    assert looked(tmp_path, stdout=unread) == "[[1], []]"
    assert looked(tmp_path, stdout=unread, stderr=unread) == "[[1, 2], []]"
    assert looked(tmp_path, stdout=subprocess.DEVNULL, stderr=unread) == "[[2], []]"


def test_a_terminal_that_was_closed_is_let_go_and_not_told(tmp_path, closed):
    """A run that was disowned goes on, though its errors would have gone there."""
    with (tmp_path / "log").open("w") as log:
        assert looked(tmp_path, stdout=log, stderr=closed) == "[[], []]"
    assert (tmp_path / "log").read_text() == "to nobody\n"
    assert looked(tmp_path, stdout=closed, stderr=closed) == "[[], []]"


def test_whoever_is_read_is_left_alone(tmp_path):
    done = subprocess.run([sys.executable, "-c", LOOK, str(tmp_path / "said")], capture_output=True, check=True)
    assert ((tmp_path / "said").read_text(), done.stdout, done.stderr) == ("[[], []]", b"to nobody\n", b"to nobody\n")


LATE = """
import atexit, os, signal, sys
from sftplug.__main__ import main

atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["sftplug", "--version"]
main()
"""


def late(handler):
    """Press Ctrl-C when all is done; `handler` is what the shell has left of it."""
    return subprocess.run(
        [sys.executable, "-c", LATE],
        capture_output=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


def test_ctrl_c_after_all_is_done_ends_the_process_without_a_word():
    """Else it would be shown as "Exception ignored in …" below what the command said last."""
    done = late(signal.SIG_DFL)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
    assert done.stdout.startswith(b"sftplug ")


def test_ctrl_c_that_is_ignored_stays_so():
    done = late(signal.SIG_IGN)
    assert (done.returncode, done.stderr) == (0, b"")
