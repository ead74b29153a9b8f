"""What a row processor says of the rows that it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftplug.errors import RowError
from sftplug.types.conversation import Row


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that goes no further."""

    reason: str | RowError
    """Why, as the end of a sentence about the row: ``is shorter than 20 characters``. A `RowError` says that the row
    does not fit, which the recipe may not allow (``data.on_bad_row``)."""
    row: Row | None = None
    """Which row, in a stream; a processor of one row leaves it out."""


@dataclass(frozen=True, slots=True)
class Made:
    """A row that a `StreamProcessor` makes of rows that it was given."""

    data: Mapping[str, Any]
    """Its columns."""
    of: Sequence[Row]
    """The rows that it is made of, as they were given; their origins become its own."""


@dataclass(frozen=True, slots=True)
class RowContext:
    """What a `StreamProcessor` may know besides the rows."""

    seed: int
    """A number to draw with: another one in each place of the recipe, and the same as long as ``train.seed`` is."""
    split: str
    """What the rows are for: ``train`` or ``eval``."""
    held_out: Callable[[], Iterator[Row]]
    """Returns the rows of ``data.eval``, each as it comes from the processors of its source."""


NAMED = 8
"""The origin of a row that is made of more rows than this names the first ones, and how many there are."""


def joined_origin(rows: Sequence[Row]) -> str:
    """Return the origin of a row that is made of `rows`: ``rows.jsonl:3+7`` for two lines of one file."""
    first, *others = dict.fromkeys(row.origin for row in rows)
    file, colon, _ = first.rpartition(":")
    shared = f"{file}{colon}"
    names = [first, *(origin.removeprefix(shared) if colon else origin for origin in others)]
    if len(names) > NAMED:
        return f"{'+'.join(names[: NAMED - 1])}+…+{names[-1]} ({len(names)} rows)"
    return "+".join(names)
