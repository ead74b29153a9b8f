"""The laws of dataset sources."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from sftplug.plugin.calls import fingerprint, label, rows_of, stamp
from sftplug.plugin.components import DatasetSource
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.types.conversation import Row

FIRST = 1000
"""So many rows are looked at."""


@proving
def check_source(component: type[DatasetSource], /, **options: Any) -> None:
    """Hold a dataset source to its laws, on the rows that it has. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, made)


def yields_rows(source: DatasetSource) -> None:
    """It yields rows: columns by name, and an origin by which a user finds each of them."""
    rows = _rows(source)
    demand(bool(rows), "no row", "give the check a source with rows, and raise sftplug.DataError where there is none.")
    for row in rows:
        named = all(isinstance(key, str) for key in row.data)
        demand(named, shown(row), "yield sftplug.Row(data, origin), with a mapping of column to value.")
        demand(bool(row.origin), f"{shown(row)} has no origin", "write `file:line`, or `name[index]`.")
    (origin, count), *_ = Counter(row.origin for row in rows).most_common(1)
    demand(count == 1, f"{count} rows have the origin '{origin}'", "count the rows in the origin: `name[index]`.")


def yields_the_same_rows_again(source: DatasetSource) -> None:
    """Each call of ``rows`` starts anew and yields the same rows in the same order."""
    first, second = _rows(source), _rows(source)
    changed = [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]
    demand(
        first == second,
        f"{shown(changed[0]) if changed else f'{len(first)} rows, and then {len(second)}'}",
        "open what you read inside of rows(), and sort what has no order, such as the files of a folder.",
    )


def is_labelled(source: DatasetSource) -> None:
    """It has a name for the ledger, the same each time."""
    first, second = label(source), label(source)
    demand(
        bool(first.strip()) and first == second,
        f"{shown(first)}, and then {shown(second)}",
        "return the option that says where the rows are.",
    )


def has_a_steady_fingerprint(source: DatasetSource) -> None:
    """Fingerprint and stamp are None, or texts that stay the same as long as the rows do."""
    for told in (fingerprint, stamp):
        first, second = told(source), told(source)
        demand(
            first == second and first != "",
            f"{told.__name__}(): {shown(first)}, and then {shown(second)}",
            "return a hash of what is read, or None where it cannot be told without reading.",
        )


LAWS = (yields_the_same_rows_again, yields_rows, is_labelled, has_a_steady_fingerprint)


def _rows(source: DatasetSource) -> list[Row]:
    return list(islice(rows_of(source), FIRST))
