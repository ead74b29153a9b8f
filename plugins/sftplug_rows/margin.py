"""A row processor that makes a loss weight of two scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sftplug import Dropped, Field, Row, RowError, RowProcessor
from sftplug_rows.texts import value_of

if TYPE_CHECKING:
    from sftplug import Recipe


class ScoreMargin(RowProcessor):
    """Weigh preferred replies by how much better than the other ones they are, for preference sets used as SFT.

    The weight is ``min((chosen - rejected) / full, 1)``: a margin of `full` or more counts as a row without a weight
    does, half of it half as much. Rows whose margin is 0 or less are dropped: nothing is preferred in them. The weight
    becomes a column, which ``row_weight`` of the source names and the masking ``message_weights`` reads.
    """

    type: Literal["score_margin"] = "score_margin"
    full: float = Field(1.0, gt=0, allow_inf_nan=False, examples=[4])
    """The margin from which on a row counts whole, in the units of the scores."""
    chosen: str = "score_chosen"
    """Column with the score of the preferred reply."""
    rejected: str = "score_rejected"
    """Column with the score of the other one."""
    column: str = "weight"
    """Column that the weight becomes; rows must have none of that name."""
    shorthand: ClassVar[str] = "full"

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns with the scores."""
        return (self.chosen, self.rejected)

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when no source reads the weight."""
        sources = [*recipe.data.train, *recipe.data.eval]
        weighed = sources if self in recipe.data.process else [source for source in sources if self in source.process]
        if not any(source.row_weight == self.column for source in weighed):
            yield (
                f"makes the column '{self.column}', and no source reads it as a weight. Say "
                f"`row_weight: {self.column}` beside `process`."
            )

    def process(self, row: Row) -> Mapping[str, Any] | Dropped:
        """Return the row with its weight."""
        if self.column in row.data:
            raise RowError(self.column, "stands in the row already. Let `column` of score_margin name another one")
        better, worse = (_score(row.data, name) for name in (self.chosen, self.rejected))
        margin = better - worse
        if margin <= 0:
            return Dropped(f"has no margin: {self.chosen} is {better:g} and {self.rejected} {worse:g}")
        return {**row.data, self.column: min(margin / self.full, 1.0)}


def _score(data: Mapping[str, Any], column: str) -> float:
    value = value_of(data, column)
    try:
        score = math.nan if isinstance(value, bool) else float(value)  # a cell of a .csv file is text
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise RowError(column, f"must be a number, not {value!r}")
    return score
