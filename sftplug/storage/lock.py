"""One run at a time writes to a folder, and one process at a time makes what all of them use.

The lock is the operating system's: it ends with the process that holds it, on every machine that sees the folder, as
far as the file system carries locks across machines. A note beside it says whose it is, for the message only.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import RunError
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK, OWNER = ".lock", ".lock.owner"
PATIENCE = 30.0
"""Seconds that the children of a dead process are given to notice: they inherit its lock, and look every 5 s."""


@contextmanager
def locked(folder: Path) -> Iterator[str | None]:
    """Hold the lock of `folder`. Raises RunError naming process and machine if another run holds it.

    Yields a sentence for the user when the last run here was on another machine and has not signed off.
    """
    from filelock import FileLock, Timeout

    lock, deadline = FileLock(folder / LOCK), time.monotonic() + PATIENCE
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            owner = _owner(folder)
            if not _is_dead(owner) or time.monotonic() > deadline:
                raise RunError(_refusal(folder, owner)) from None
        except (OSError, NotImplementedError) as error:
            raise RunError(f"{folder} cannot be locked: {error}. {_no_locks()}") from error
    # Where a file system has no locks, filelock falls back to a mere file, and the lock is of another class from then
    # on.
    _refuse_marker(lock, folder)
    before = _owner(folder)
    try:
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (folder / OWNER).write_text(json.dumps(note), encoding="utf-8")
        yield _taken_over(before)
    finally:
        # The note first: once the lock is free, the note is that of the next owner.
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


@contextmanager
def waited_for(file: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock `file`, once nobody else does; `waiting` is called if somebody does."""
    from filelock import FileLock, Timeout

    lock = FileLock(file, mode=0o666)  # less what the user's umask takes away
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _no_locks() -> str:
    return f"Two runs could not be kept apart there. Choose an {argument('--output')} on a file system that has locks."


def _refuse_marker(lock: BaseFileLock, folder: Path) -> None:
    """Raise RunError where there are no locks and a mere file stands for one: that of a killed run would not go."""
    from filelock import SoftFileLock

    if isinstance(lock, SoftFileLock):
        lock.release()
        raise RunError(f"{folder} cannot be locked: its file system has no locks. {_no_locks()}")


def _refusal(folder: Path, owner: dict[str, Any]) -> str:
    other = argument("--output")
    text = f"another run writes to {folder}: {_whose(owner)}. Choose another {other}, or wait for it to end."
    if not owner or owner["host"] == socket.gethostname():
        return text
    # A file server holds the lock of a machine that is gone until it has noticed.
    return (
        f"{text} If that process is gone, its lock goes with it; if the machine itself went down, once the file server "
        f"notices, or when you delete {folder / LOCK} after making sure that nothing runs there any more."
    )


def _whose(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"


def _taken_over(owner: dict[str, Any]) -> str | None:
    """Say whose folder it was, if that was on a machine whose processes cannot be looked at from here."""
    if not owner or owner["host"] == socket.gethostname():
        return None
    return (
        f"the last run here was {_whose(owner)}, and it did not sign off. Its lock is gone, so this run goes on; on a "
        "file system that carries no locks across machines, make sure that it has ended"
    )


def _owner(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return {key: note[key] for key in ("pid", "host", "since")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that is no more, and so only its children hold the lock."""
    if not owner or owner["host"] != socket.gethostname() or os.name != "posix":
        return False
    try:
        # Signal 0 is sent to nobody: it only asks whether there is such a process.
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
