"""Say what a write that failed means for the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftplug.errors import Interrupted, SftplugError, TrainingError
from sftplug.run import checkpoints
from sftplug.storage.disk import is_about_writing, no_room
from sftplug.util.streams import let_go

SIGPIPE = 13
"""Its number on every system that has it."""


@contextmanager
def explaining(what: str, output: Path) -> Iterator[None]:
    """Raise what is raised inside, or in its place the error that explains it; see `explained`."""
    try:
        yield
    except Exception as error:
        better = explained(error, what, output)
        if better is error:
            raise
        raise better from error


def explained(error: BaseException, what: str, output: Path) -> BaseException:
    """Return the error that tells the user why something is not written, what is left, and what to do.

    Errors that were written for the user, and those that have nothing to do with writing, are returned as they are.
    """
    if isinstance(error, SftplugError) or not is_about_writing(error, output):
        return error
    room, free = no_room(error, output), f"{shutil.disk_usage(output).free:,} bytes are free"
    reason = room.reason if room is not None else f"{type(error).__name__}: {error} ({free})"
    return TrainingError(f"{what}: {reason}. {whats_left(output)}")


def unread(error: BaseException, output: Path) -> Interrupted | None:
    """Return the error that ends a run whose output nobody reads any more (``train | head``); None for any other.

    Where rich prints, it ends the process with SystemExit.
    """
    # rich turns a broken pipe into SystemExit(1), and leaves the cause in the context only.
    by_rich = isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    if not by_rich and not (isinstance(error, BrokenPipeError) and let_go()):
        return None
    found = next(checkpoints.whole(output), None)
    how = f"to resume from step {found.step}" if found else "to start over; there is no checkpoint yet"
    return Interrupted(f"nobody reads the output any more (SIGPIPE). Run the same command again {how}.", SIGPIPE)


def whats_left(output: Path) -> str:
    """Say from where a run in `output` can be resumed."""
    found = next(checkpoints.whole(output), None)
    if found is None:
        return "There is no checkpoint yet: once that is fixed, the same command starts over."
    return f"Nothing up to step {found.step} is lost: once that is fixed, the same command resumes from there."
