"""One run at a time writes to a folder.

The lock is the operating system's: it ends with the process that holds it, on every machine that sees the folder, as
far as the file system carries locks across machines. A note beside it says whose it is, for the message only.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sftplug.errors import RunError

LOCK, OWNER = ".lock", ".lock.owner"
PATIENCE = 30.0
"""Seconds that the children of a dead process are given to notice: they inherit its lock, and look every 5 s."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`. Raises RunError naming process and machine if another run holds it."""
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
    try:
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        (folder / OWNER).write_text(json.dumps(note), encoding="utf-8")
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _refusal(folder: Path, owner: dict[str, Any]) -> str:
    whose = f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"
    return f"another run writes to {folder}: {whose}. Choose another --output, or wait for it to end."


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
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
