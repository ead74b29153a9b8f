"""Say what a write that failed means for the run."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftplug.errors import SftplugError, TrainingError
from sftplug.run import checkpoints

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS = ("No space left on device", "File too large", "PytorchStreamWriter failed writing", "inline_container.cc")
"""What safetensors and torch say of a write that was cut short, in errors without a number."""


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
    if isinstance(error, SftplugError) or not is_about_writing(error):
        return error
    free = f"{shutil.disk_usage(output).free:,} bytes are free"
    reason = f"the disk is full ({free})" if is_full(error) else f"{type(error).__name__}: {error} ({free})"
    return TrainingError(f"{what}: {reason}. {whats_left(output)}")


def whats_left(output: Path) -> str:
    """Say from where a run in `output` can go on."""
    found = next(checkpoints.whole(output), None)
    if found is None:
        return "There is no checkpoint yet: once that is mended, the same command begins anew."
    return f"Nothing up to step {found.step} is lost: once that is mended, the same command goes on from there."


def is_full(error: BaseException) -> bool:
    """Whether a write failed because there is no room: told by its number, or by what the libraries make of it."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in _FULL:
            return True
        if any(words in str(chain) for words in _WORDS):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def is_about_writing(error: BaseException) -> bool:
    """Whether an error is that of a write: of the system, or of a library that writes weights."""
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError" or is_full(error)
