"""Read text, or say in the user's words why it cannot be read."""

from __future__ import annotations

from pathlib import Path

from sftplug.errors import DataError


def read_text(file: str | Path) -> str:
    """Return the text of `file`, which is in UTF-8.

    Raises DataError saying what is wrong with the file, and at which byte where it is no UTF-8.
    """
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise DataError(f"{file}: is not UTF-8 text: {where}. Convert it first.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
