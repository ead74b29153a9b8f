"""Whether a folder or a file can be written where the user wants it: tried before anything is computed for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftplug.errors import RunError
from sftplug.storage.disk import no_room
from sftplug.storage.files import atomic_write
from sftplug.util.arguments import argument

_PROBE = ".writable-"
"""How the names of folders begin that are made only to see whether one can be; a killed command may leave one."""


def refuse_unwritable(folder: Path, option: str = "--output") -> None:
    """Raise RunError where no files can be written into `folder`, which need not be there; nothing is left behind.

    What a command would make is made beside: a folder for each that is missing, and a file. So what a system says only
    when it is asked (a disk that is read-only or full, a name that is too long, ``/proc``) is known as well.
    """
    whole = folder.absolute()
    there = next(path for path in (whole, *whole.parents) if os.path.lexists(path))
    # Nothing is made outside of the trial, wherever ``missing/../..`` would lead.
    missing = [name for name in whole.relative_to(there).parts if name != ".."]
    if why := _why_not(there, Path(*missing, "file")):
        raise RunError(f"the output folder {folder} cannot be written: {why}. Choose another {argument(option)}.")


def refuse_unwritable_file(file: Path) -> None:
    """Raise RunError where no file can be put in the place of `file`; nothing is left behind.

    A device or a pipe that is there is written to as it is, and not tried.
    """
    parent = file.absolute().parent
    if is_special(file) and not file.is_dir():
        return
    if file.is_dir():
        why: str | None = "it is a folder"
    elif not os.path.lexists(parent):
        why = f"there is no folder {parent}"
    else:
        why = _why_not(parent, Path(f".{file.name}.new"))  # as it is written: beside the one that is there
    if why:
        raise RunError(f"{file} cannot be written: {why}. Name another file.")


def write_file(file: Path, text: str) -> None:
    """Write a file that the user asked for, whole or not at all. Raises RunError when it cannot be written."""
    try:
        if is_special(file):
            file.write_text(text, encoding="utf-8")  # a pipe, a terminal
        else:
            atomic_write(file, text)
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror or error}.") from error


def is_probe(name: str) -> bool:
    """Whether a file or folder of this name was made only to see whether it can be."""
    return name.startswith(_PROBE)


def is_special(file: Path) -> bool:
    """Whether something is there that is not a regular file: a device, a pipe, a folder."""
    try:
        return file.exists() and not file.is_file()
    except OSError:  # its name is too long
        return False


def _why_not(there: Path, file: Path) -> str | None:
    """Return why no `file` can be written below `there`, in a clause; None if it can."""
    if there.is_symlink() and not there.exists():
        return f"{there} is a link that leads nowhere"
    if not there.is_dir():
        return f"{there} is {'a file' if there.is_file() else 'not a folder'}"
    try:
        # Permissions tell less than a trial: they say nothing of a file system that is read-only, a quota, or a disk
        # that is full.
        with _trial(there) as trial:
            (trial / file).parent.mkdir(parents=True, exist_ok=True)
            (trial / file).write_bytes(b"x")
    except FileNotFoundError:  # as Linux says of what is not a disk, such as /proc
        return f"{there} takes no files"
    except OSError as error:
        room = no_room(error, there)
        return room.reason if room else f"{error.strerror or error} ({there})"
    return None


@contextmanager
def _trial(there: Path) -> Iterator[Path]:
    """Make a folder in `there`, and delete it with all that is in it."""
    trial = Path(tempfile.mkdtemp(prefix=_PROBE, dir=there))
    try:
        yield trial
    finally:
        shutil.rmtree(trial, ignore_errors=True)
