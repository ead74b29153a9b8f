"""Row processors that choose among rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from sftplug import DataError, Dropped, Field, Made, Row, RowContext, RowError, RowProcessor, StreamProcessor
from sftplug_rows.texts import texts_in, value_of

if TYPE_CHECKING:
    from sftplug import Recipe

Scalar = str | int | float | bool | None


class Filter(RowProcessor):
    """Keep the rows of which every condition holds that is named: by the value of a column, or by how long it is."""

    type: Literal["filter"] = "filter"
    column: str | None = Field(None, examples=["language"])
    """The column that is looked at; without one, all texts of the row, of which the length is taken together."""
    by: Literal["value", "characters", "words"] = "value"
    """What is looked at: the column's value, or how many characters or words (between white space) its texts have."""
    keep: Scalar | tuple[Scalar, ...] = Field((), examples=["en"])
    """Rows with one of these values are kept, others are dropped."""
    drop: Scalar | tuple[Scalar, ...] = ()
    """Rows with one of these values are dropped."""
    at_least: float | None = None
    """Rows whose number, or length, is smaller are dropped."""
    at_most: float | None = None
    """Rows whose number, or length, is greater are dropped."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The column, if its value is looked at."""
        return (self.column,) if self.column is not None and self.by == "value" else ()

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when there is no condition, or one that means nothing."""
        if self.keep == () and self.drop == () and self.at_least is None and self.at_most is None:
            yield "has no condition: name `keep`, `drop`, `at_least` or `at_most`."
        if self.column is None and self.by == "value":
            yield "needs a `column`, or `by: characters` or `by: words` for the length of a whole row."
        if self.by != "value" and (self.keep != () or self.drop != ()):
            yield f"`keep` and `drop` list values of a column. For its length in {self.by} use `at_least`, `at_most`."
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            yield f"no row is at least {self.at_least:g} and at most {self.at_most:g}. Lower `at_least`."

    def process(self, row: Row) -> Mapping[str, Any] | Dropped:
        """Return the row, or the condition that does not hold."""
        value = row.data if self.column is None else value_of(row.data, self.column)
        reason = self._by_value(value) if self.by == "value" else None
        if reason is None and (self.at_least is not None or self.at_most is not None):
            reason = self._by_size(value)
        return row.data if reason is None else Dropped(reason)

    def _by_value(self, value: Any) -> str | None:
        shown = f"{self.column} is {_short(value)}"
        if self.keep != () and not _is_among(value, self.keep):
            return f"{shown}, which is not kept"
        return f"{shown}, which is dropped" if self.drop != () and _is_among(value, self.drop) else None

    def _by_size(self, value: Any) -> str | None:
        size = self._size(value)
        what = self.column or "the row"
        unit = "" if self.by == "value" else f" {self.by}"
        verb = "is" if self.by == "value" else "has"
        if self.at_least is not None and not size >= self.at_least:
            return f"{what} {verb} {size:g}{unit}, less than {self.at_least:g}"
        if self.at_most is not None and not size <= self.at_most:
            return f"{what} {verb} {size:g}{unit}, more than {self.at_most:g}"
        return None

    def _size(self, value: Any) -> float:
        if self.by == "characters":
            return sum(map(len, texts_in(value)))
        if self.by == "words":
            return sum(len(text.split()) for text in texts_in(value))
        # Whether `true` is at least 3 is no question: nan fails every comparison, so such a row is dropped.
        try:
            return float("nan") if isinstance(value, bool) else float(value)  # a cell of a .csv file is text
        except (TypeError, ValueError, OverflowError):
            raise RowError(str(self.column), f"must be a number, not {_short(value)}") from None


def _is_among(value: Any, wanted: Scalar | tuple[Scalar, ...]) -> bool:
    """Whether `value` is one of `wanted`; true is not 1."""
    values = wanted if isinstance(wanted, tuple) else (wanted,)
    return any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class Sample(StreamProcessor):
    """Draw rows at random, each with the same chance, and keep them in their order.

    A number of rows is drawn by reservoir sampling (Vitter 1985, algorithm R): as many are held in memory. Each row of
    a share is drawn by itself, so that about that share of the rows is kept.
    """

    type: Literal["sample"] = "sample"
    n: int | None = Field(None, gt=0, examples=[1000])
    """How many rows; fewer than that to draw from are refused."""
    share: float | None = Field(None, gt=0, le=1)
    """Instead of `n`: the chance of each row."""
    seed: int | None = Field(None, ge=0)
    """What is drawn by; without it ``train.seed``."""
    shorthand = "n"
    holds_rows = True

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when it is not one of both."""
        if (self.n is None) == (self.share is None):
            yield "needs exactly one of `n`, a number of rows, and `share`."

    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterator[Row | Made | Dropped]:
        """Draw. Raises DataError for fewer rows than are to be drawn."""
        import numpy as np

        random = np.random.default_rng(context.seed if self.seed is None else self.seed)
        if self.n is None:
            for row in rows:
                yield row if random.random() < (self.share or 0) else Dropped("was not drawn", row)
            return
        held: list[tuple[int, Row]] = []
        for index, row in enumerate(rows):
            if index < self.n:
                held.append((index, row))
                continue
            # The eleventh row draws one of 0 to 10: with 4 places held, it takes one of them with the chance 4/11, as
            # each row has.
            place = int(random.integers(index + 1))
            if place < self.n:
                (_, row), held[place] = held[place], (index, row)
            yield Dropped("was not drawn", row)
        if len(held) < self.n:
            raise DataError(f"draws {self.n:,} rows, and there are {len(held):,}. Lower `n`, or leave it out.")
        yield from (row for _, row in sorted(held, key=lambda item: item[0]))
