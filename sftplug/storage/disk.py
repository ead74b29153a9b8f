"""Why something cannot be written: a disk that is full, a file that may not grow any further, a folder of another's."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sftplug.errors import DataError, SftplugError

_FULL, _FULL_WORDS = (errno.ENOSPC, errno.EDQUOT), ("No space left on device", "Disk quota exceeded")
_LARGE, _LARGE_WORDS = (errno.EFBIG,), ("File too large",)
_CUT_SHORT = ("PytorchStreamWriter failed writing", "inline_container.cc")
"""What torch says of a write that was cut short, whatever the reason; safetensors passes on what the system says."""


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Why a write was cut short."""

    reason: str
    """As in: the disk is full (12 bytes are free)."""
    remedy: str
    """What a user does about it, as in: Make room."""
    elsewhere: bool
    """Whether another disk would help."""

    def sentence(self, variable: str) -> str:
        """Return what to do, where the environment variable `variable` says on which disk it is."""
        other = f"name a folder on another disk in the environment variable {variable}"
        return f"{self.remedy}, or {other}." if self.elsewhere else f"{self.remedy}."


def no_room(error: BaseException, folder: Path) -> NoRoom | None:
    """Return why there is no room for what was written in `folder`; None if that is not what the error says."""
    errors = list(_chain(error))
    if _says(errors, _FULL, _FULL_WORDS):
        return _full(folder)
    # Torch says only that a write was cut short. A limit for files below what is free was met before the disk was full.
    large, short = _says(errors, _LARGE, _LARGE_WORDS), _says(errors, (), _CUT_SHORT)
    limit = _largest_file()
    if large or (short and limit is not None and limit < free_bytes(folder)):
        return _too_large(limit)
    return _full(folder) if short else None


def is_about_writing(error: BaseException, folder: Path) -> bool:
    """Whether an error is that of a write in `folder`: of the system, or of a library that writes weights."""
    is_one = isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
    return is_one or no_room(error, folder) is not None


@contextmanager
def making_room(folder: Path, variable: str, what: str, kind: type[SftplugError] = DataError) -> Iterator[None]:
    """Raise an error of `kind`, naming the environment `variable` that says where, when `folder`'s disk gets full.

    `what` is what cannot be kept there: ``prepared rows``.
    """
    try:
        yield
    except Exception as error:
        if (room := no_room(error, folder)) is None:
            raise
        raise kind(f"{folder}: {what} cannot be kept here: {room.reason}. {room.sentence(variable)}") from error


_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


def cannot_keep(folder: Path, what: str, error: OSError) -> Exception:
    """Return what to raise for an error while `what` was kept in `folder`; `error` itself if it is of other files."""
    file = Path(str(error.filename))
    if error.errno not in _UNWRITABLE or not (file.is_relative_to(folder) or folder.is_relative_to(file)):
        return error
    return DataError(
        f"{folder}: {what} cannot be kept here: {error}. Is it read-only, or another user's? Name a folder of your own "
        "in the environment variable SFTPLUG_CACHE."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    while error is not None and id(error) not in seen:  # one may be raised again from what it caused
        seen.add(id(error))
        yield error
        # A library may have put an error of its own around what the system says.
        error = error.__cause__ or error.__context__


def _says(errors: list[BaseException], numbers: tuple[int, ...], words: tuple[str, ...]) -> bool:
    return any(
        (isinstance(error, OSError) and error.errno in numbers) or any(text in str(error) for text in words)
        for error in errors
    )


def _full(folder: Path) -> NoRoom:
    return NoRoom(f"the disk is full ({free_bytes(folder):,} bytes are free)", "Make room", elsewhere=True)


def _too_large(limit: int | None) -> NoRoom:
    if limit is None:
        return NoRoom("the file system takes no file that large", "Use one that does", elsewhere=True)
    reason = f"no file may be larger than {limit:,} bytes here (`ulimit -f`)"
    return NoRoom(reason, "Raise that limit", elsewhere=False)


def free_bytes(folder: Path) -> int:
    """Return how many bytes are free where `folder` is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _largest_file() -> int | None:
    """Return how many bytes a file of this process may have; None if that is not limited."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit
