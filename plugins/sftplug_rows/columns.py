"""Row processors that change what rows say, and how their columns are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from sftplug import (
    DataError,
    Dropped,
    Field,
    Made,
    Row,
    RowContext,
    RowError,
    StreamProcessor,
    TextFiller,
    did_you_mean,
)

Named = Annotated[str, Field(min_length=1)]


class Replace(StreamProcessor):
    """Fill in texts that stand for others, such as placeholders.

    Each is replaced as it is written, in every text of a row, in tool calls and JSON texts too. What is filled in is
    not searched again; where two texts begin in the same place, the longer one counts. A text that stands in no row
    stops the run. The same as ``replace`` of a source, in a place of your choice among other processors.
    """

    type: Literal["replace"] = "replace"
    texts: dict[Named, str] = Field(min_length=1, examples=[{"{{name}}": "Ada"}])
    """What is searched for, and what stands there instead."""

    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterator[Row | Made | Dropped]:
        """Fill in each row. Raises DataError for texts that stand in none."""
        filler = TextFiller(self.texts)
        for row in rows:
            try:
                filled = filler.fill(row.data)
            except RowError as error:
                yield Dropped(error, row)
                continue
            yield row if filled is row.data else Made(filled, [row])
        if missing := filler.missing():
            texts = ", ".join(map(repr, missing))
            raise DataError(f"names {texts}, which stands in no row. Correct it, or leave it out.")


class Rename(StreamProcessor):
    """Give columns other names.

    Rows that lack a column stay without it; one that no row has stops the run. A row that has a column of the new name
    already does not fit.
    """

    type: Literal["rename"] = "rename"
    columns: dict[Named, Named] = Field(min_length=1, examples=[{"instruction": "prompt"}])
    """Old name, and new name. All are renamed at once, so two columns may change places."""

    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterator[Row | Made | Dropped]:
        """Rename the columns of each row. Raises DataError for columns that no row has."""
        missing, seen = set(self.columns), dict[str, None]()
        for row in rows:
            here = self.columns.keys() & row.data.keys()
            missing -= here
            # Names are collected for the error alone: once each column was found, there will be none.
            if missing:
                seen.update(dict.fromkeys(row.data))
            if taken := self._taken(row):
                yield Dropped(taken, row)
            elif here:
                yield Made({self.columns.get(name, name): value for name, value in row.data.items()}, [row])
            else:
                yield row
        for name in sorted(missing):
            hint, known = did_you_mean(name, seen), ", ".join(seen)
            raise DataError(f"no row has the column '{name}'.{hint} They have: {known}. Correct it, or leave it out.")

    def _taken(self, row: Row) -> RowError | None:
        # With `a: b`, a row that has both a and b would have two columns b.
        names = [self.columns.get(name, name) for name in row.data]
        twice = next((name for name in names if names.count(name) > 1), None)
        return None if twice is None else RowError(twice, "would stand twice in the row: it has a column of that name")
