"""What was counted in a dataset, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sftplug.data.survey import ColumnSurvey, Survey
from sftplug.types.ledger import length_quantiles

_SHOWN = 10
"""So many of one sort are named."""


def in_words(survey: Survey) -> Iterator[str]:
    """Yield a line for each thing that is known."""
    yield f"rows: {survey.rows:,}"
    if len(survey.files) > 1:
        yield f"files: {_counts(survey.files)}"
    for name, column in survey.columns.items():
        yield f"column {name}: {_column(column, survey.rows)}"
    if survey.roles:
        yield from _conversations(survey)
    if survey.given:
        said = f"{survey.trained:,} rows say which are trained"
        yield f"tokens: {_quantiles(survey.given)} a row, as they stand in the rows; {said}"
    if survey.duplicates:
        yield f"equal to a row before: {survey.duplicates:,}"


def _conversations(survey: Survey) -> Iterator[str]:
    yield f"turns: {_quantiles(survey.turns)} a row; {_counts(survey.roles)}"
    yield f"characters: {_quantiles(survey.characters)} a row"
    if survey.tokens:
        yield f"tokens: {_quantiles(survey.tokens)} a row, without what a chat template adds"
    for count, what in ((survey.tools, "declare tools"), (survey.calls, "call tools"), (survey.reasoning, "think")):
        if count:
            yield f"rows that {what}: {count:,}"
    for family, found in survey.control_tokens.items():
        yield f"control tokens of {family} in texts: {_counts(found)}"
    if survey.placeholders:
        yield f"placeholders in texts: {_counts(survey.placeholders)}"


def _column(column: ColumnSurvey, rows: int) -> str:
    kinds = " or ".join(kind for kind, _ in column.types.most_common(_SHOWN)) or "null"
    length = f", {_quantiles(column.lengths)} characters" if column.lengths else ""
    missing = f", null in {column.nulls:,} of {rows:,} rows" if column.nulls else ""
    return f"{kinds}{length}{missing}"


def _quantiles(lengths: Counter[int]) -> str:
    """Return ``3`` where all are alike, else ``3 (half of them), at most 9``."""
    found = length_quantiles(lengths)
    if found["50%"] == found["100%"] == min(lengths):
        return f"{found['100%']:,}"
    return f"{found['50%']:,} (median), at most {found['100%']:,}"


def _counts(counter: Counter[str]) -> str:
    more = f" and {len(counter) - _SHOWN:,} more" if len(counter) > _SHOWN else ""
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common(_SHOWN)) + more
