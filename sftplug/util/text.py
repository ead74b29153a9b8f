"""Read text, or say in the user's words why it cannot be read; show text that strangers wrote."""

from __future__ import annotations

from pathlib import Path

from sftplug.errors import DataError


def read_text(file: str | Path) -> str:
    """Return the text of `file`, which is in UTF-8.

    Raises DataError saying what is wrong with the file, and at which byte where it is not UTF-8.
    """
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise DataError(f"{file}: is not UTF-8 text: {where}. Convert it first.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


_KEPT = "\n\t\u200c\u200d"
"""Line ends, tabs, and the joiners that shape letters and emoji."""


def visible(text: str) -> str:
    """Return `text` with all that is not a character to be read spelled, as in ``\\x1b``: line ends and tabs stay.

    For what strangers wrote and a terminal or a page is to show: an escape sequence in a row, a key or a file's name
    must not drive the terminal, nor a mark of writing direction turn the words around it.
    """
    return "".join(part if part.isprintable() or part in _KEPT else _spelled(part) for part in text)


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
