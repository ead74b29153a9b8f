"""What a row says: its texts, and one of its columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftplug import RowError, did_you_mean

_BETWEEN = re.compile(r"[\W_]+")


def value_of(data: Mapping[str, Any], column: str) -> Any:
    """Return what a column holds. Raises RowError where the row has no such column."""
    if column not in data:
        raise RowError(column, f"is missing.{did_you_mean(column, data)} The row has: {', '.join(map(str, data))}.")
    return data[column]


def chosen(data: Mapping[str, Any], columns: Sequence[str] | None) -> Mapping[str, Any]:
    """Return some columns of a row, or all of them. Raises RowError where one is missing."""
    return data if columns is None else {name: value_of(data, name) for name in columns}


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a value, from the first to the last. Raises RowError for one nested too deeply."""
    try:
        yield from _texts(value)
    except RecursionError as error:
        raise RowError("row", "is nested too deeply to be searched for texts") from error


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in inner:
        yield from _texts(item)


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters, without punctuation; characters that look alike are one."""
    return _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).lower()).split()
