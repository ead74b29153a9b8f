"""The laws of row processors."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

from sftplug.errors import DataError, PluginError
from sftplug.plugin.calls import MOST_HELD, outcomes, processor_fingerprint, row_columns
from sftplug.plugin.components import RowProcessor, StreamProcessor
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, check_drawn, demand, make, need_hypothesis, shown
from sftplug.testing.proofs import proving
from sftplug.types.conversation import Row
from sftplug.types.processing import RowContext

MANY = MOST_HELD + 500
"""So many rows tell whether a processor holds them."""
Fate = tuple[str, object]
"""What became of rows: their origins, and the rows made or the reason why there are none."""


@dataclass(frozen=True, slots=True)
class ProcessorSubject:
    """A processor, and rows to process."""

    processor: RowProcessor
    rows: Sequence[Row]
    held_out: Sequence[Row] = ()

    def fates(self, rows: Sequence[Row] | None = None) -> list[Fate]:
        """Return what becomes of the rows, or of others."""
        context = RowContext(seed=0, split="train", held_out=lambda: iter(self.held_out))
        found = outcomes(self.processor, self.rows if rows is None else rows, context)
        return [
            (
                "+".join(row.origin for row in outcome.of),
                [(row.origin, row.data) for row in outcome.made] if outcome.dropped is None else str(outcome.dropped),
            )
            for outcome in found
        ]


@proving
def check_row_processor(
    component: type[RowProcessor],
    rows: Sequence[Mapping[str, Any]],
    held_out: Sequence[Mapping[str, Any]] = (),
    /,
    **options: Any,
) -> None:
    """Hold a row processor to its laws; `rows` are a few that fit it, and damaged ones are drawn from them.

    `held_out` are rows of ``data.eval``, for a processor that compares with those. Raises LawBroken.
    """
    need_hypothesis()
    check_component(component, **options)
    if not rows:
        raise ValueError("check_row_processor needs at least one row that fits the processor")
    made = make(component, options)
    given = ProcessorSubject(made, _numbered(rows), _numbered(held_out, "held_out.jsonl"))
    check(made, LAWS, given)
    from sftplug.testing.draw import damaged_rows

    drawn = damaged_rows(rows).map(lambda row: replace(given, rows=_numbered([row])))
    check_drawn(made, (refuses_a_bad_row_by_name, leaves_rows_alone), drawn, examples=100)


def _numbered(rows: Sequence[Mapping[str, Any]], file: str = "rows.jsonl") -> list[Row]:
    return [Row(row, f"{file}:{number}") for number, row in enumerate(rows, start=1)]


def passes_on_rows(given: ProcessorSubject) -> None:
    """Of rows that fit it makes rows that JSON can hold, or says why it drops them; it says so of every row."""
    for _, fate in given.fates():
        for _, data in fate if isinstance(fate, list) else ():
            try:
                json.dumps(data, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise Breach(f"{shown(data)}: {error}", "make rows of text, numbers, lists and mappings.") from error


def is_the_same_again(given: ProcessorSubject) -> None:
    """The same rows lead to the same result, whenever they are processed and by whichever copy of it."""
    first = given.fates()
    copied = replace(given, processor=pickle.loads(pickle.dumps(given.processor)))
    for who, other in (("the same one", given), ("a copy", copied)):
        again = other.fates()
        pairs = (pair for pair in zip(first, again, strict=False) if pair[0] != pair[1])
        before, after = next(pairs, (len(first), len(again)))
        found = f"{shown(before)}, and then, by {who}, {shown(after)}"
        fix = "keep what you note of rows in variables of stream(), and draw with `context.seed`."
        demand(first == again, found, fix)


def judges_each_row_alone(given: ProcessorSubject) -> None:
    """What becomes of a row does not depend on the others, unless it is a stream that is processed."""
    if isinstance(given.processor, StreamProcessor):
        return
    together = sorted(given.fates(list(reversed(given.rows))), key=repr)
    alone = sorted((fate for row in given.rows for fate in given.fates([row])), key=repr)
    changed = next((pair for pair in zip(together, alone, strict=False) if pair[0] != pair[1]), ("", ""))
    found = f"{shown(changed[0])} among others, and {shown(changed[1])} alone"
    demand(together == alone, found, "make it a sftplug.StreamProcessor, which sees all rows.")


def leaves_rows_alone(given: ProcessorSubject) -> None:
    """A row is not changed by being processed."""
    rows = [Row(copy.deepcopy(row.data), row.origin) for row in given.rows]
    with suppress(DataError, PluginError):  # another law is about those
        given.fates(rows)
    changed = next((pair for pair in zip(given.rows, rows, strict=True) if pair[0] != pair[1]), None)
    found = "" if changed is None else f"the row {shown(changed[0].data)} became {shown(changed[1].data)}"
    demand(changed is None, found, "return new columns, as in {**row.data, 'name': value}, and copy what you change.")


def lets_rows_go(given: ProcessorSubject) -> None:
    """It holds few rows at once, or its class says that it holds them: there may be more rows than memory."""
    if isinstance(given.processor, StreamProcessor):
        with suppress(DataError):
            given.fates(list(_many(given.rows)))


def _many(rows: Sequence[Row]) -> Iterator[Row]:
    for number, row in enumerate(islice(cycle(rows), MANY), start=1):
        yield Row(row.data, f"many.jsonl:{number}")


def has_a_steady_fingerprint(given: ProcessorSubject) -> None:
    """Its fingerprint is None, or a text that stays the same; its columns are names."""
    first, second = processor_fingerprint(given.processor), processor_fingerprint(given.processor)
    row_columns(given.processor)
    demand(
        first == second,
        f"fingerprint(): {shown(first)}, and then {shown(second)}",
        "return what else the rows depend on, such as the version of a library, or None where it cannot be told.",
    )


def refuses_a_bad_row_by_name(given: ProcessorSubject) -> None:
    """A row that does not fit raises RowError, or is dropped with one, which names the column; and nothing else."""
    try:
        given.fates()
    except PluginError as error:
        found = f"the row {shown(given.rows[0].data)}: {error}"
        raise Breach(found, "look before you take: RowError(column, reason) for what does not fit.") from error
    except DataError:
        return  # said on purpose, of all rows


LAWS = (
    leaves_rows_alone,
    passes_on_rows,
    is_the_same_again,
    judges_each_row_alone,
    lets_rows_go,
    has_a_steady_fingerprint,
)
