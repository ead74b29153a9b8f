"""The first rows of a source, looked at before all of them are read; what came over the network comes once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain, islice

from sftplug.plugin.calls.rows import is_remote, read_rows
from sftplug.plugin.components import DatasetSource
from sftplug.types.conversation import Row

_BEGUN: dict[int, Iterator[Row]] = {}
"""Identity of a source -> its rows from the first one on, of which some are fetched already; until it is read."""


def first_rows(source: DatasetSource, count: int) -> list[Row]:
    """Return at most `count` rows from the start; those of a remote source are not fetched again by `rows_of`.

    Raises what `rows_of` raises.
    """
    rows = read_rows(source)
    first = list(islice(rows, count))
    if is_remote(source):
        if id(source) not in _BEGUN:
            weakref.finalize(source, _BEGUN.pop, id(source), None)
        _BEGUN[id(source)] = chain(first, rows)
    return first


def hand_over(before: DatasetSource, source: DatasetSource) -> None:
    """Let `source`, which is the same as `before` and was made anew, go on with what that has fetched."""
    if before is not source and (rows := _BEGUN.pop(id(before), None)) is not None:
        weakref.finalize(source, _BEGUN.pop, id(source), None)
        _BEGUN[id(source)] = rows


def rows_of(source: DatasetSource) -> Iterator[Row]:
    """Yield the rows of a source. Raises PluginError for one that is not a `Row`."""
    yield from _BEGUN.pop(id(source), None) or read_rows(source)
