"""Folders that hold a result of one command: there as a whole, or not at all, whenever the machine stops."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sftplug.errors import RunError, SftplugError
from sftplug.storage.disk import is_about_writing, no_room
from sftplug.storage.lock import LOCK, OWNER, locked
from sftplug.storage.writable import is_probe, refuse_unwritable
from sftplug.util.arguments import argument

UNFINISHED = ".unfinished"
"""Where the files are until all of them are there; what a killed command left in it is deleted by the next one."""


@contextmanager
def atomic_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder; if all goes well, what was written to it is then in `output`, and if not, nothing is.

    Raises RunError when something is at `output` already, when another process writes there, or when it cannot be
    written.
    """
    refuse_taken(output)
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    # Within `output` itself, so that what is in it is on the same disk and only renamed in the end.
    unfinished = output / UNFINISHED
    try:
        output.mkdir(parents=True, exist_ok=True)
        with locked(output):
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                unfinished.mkdir()
                yield unfinished
                for path in sorted(unfinished.iterdir()):
                    path.rename(output / path.name)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
                for name in (LOCK, OWNER):
                    (output / name).unlink(missing_ok=True)
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # someone has put something there
                folder.rmdir()
        if isinstance(error, SftplugError) or not isinstance(error, Exception) or not is_about_writing(error, output):
            raise
        raise RunError(f"{output} cannot be written: {_why(error, output)}") from error


@contextmanager
def atomic_file(output: Path) -> Iterator[Path]:
    """Yield the path of a file that is not there yet, beside `output`; if all goes well, it is then `output`.

    It has the ending of `output`, by which libraries tell what to write. Raises RunError when something is at `output`
    already, or when it cannot be written.
    """
    if output.exists():
        raise RunError(f"{output} exists already. Choose another {argument('--output')}.")
    refuse_unwritable(output.parent)
    unfinished = output.with_name(f"{UNFINISHED}-{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        yield unfinished
        unfinished.replace(output)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, SftplugError) or not isinstance(error, Exception) or not is_about_writing(error, output):
            raise
        raise RunError(f"{output} cannot be written: {_why(error, output)}") from error


def _why(error: Exception, output: Path) -> str:
    room = no_room(error, output)
    return f"{room.reason}. Nothing was kept." if room else str(getattr(error, "strerror", None) or error)


def refuse_taken(output: Path) -> None:
    """Raise RunError when something is in `output` already, or nothing can be; what a killed command left is nothing.

    Commands ask before they compute what they will write there.
    """
    refuse_unwritable(output)
    left = (UNFINISHED, LOCK, OWNER)
    if output.is_dir() and any(path.name not in left and not is_probe(path.name) for path in output.iterdir()):
        raise RunError(f"{output} is not an empty folder. Choose another {argument('--output')}.")
