"""Draw rows of a run as they were trained: prepared again from its folder, with the template and tokenizer it kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sftplug.errors import SftplugError
from sftplug.plugin.manager import installed_among, refuse_unknown_blocks
from sftplug.run import RunDirectory
from sftplug.ship.replay import KeptInputs, kept, replay
from sftplug.util.redact import redact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sftplug.data.rendering import TextRow
    from sftplug.previewing import Collector, PreviewRow
    from sftplug.reporting.collect import Report
    from sftplug.types.tokens import TokenBatch


def refuse_unknown_plugins(reports: Iterable[Report], without: Iterable[str]) -> None:
    """Raise PluginError for a name in `without` that no plugin has, neither an installed one nor one of the runs."""
    refuse_unknown_blocks(without, (plugin["name"] for report in reports for plugin in report.plugins))


def with_rows(report: Report, count: int, without: Iterable[str] = ()) -> Report:
    """Return `report` with the first `count` training rows, or with the reason why they cannot be had.

    `without` are names of plugins that are not loaded; those of plugin files may be of another run.
    """
    own = {plugin["name"] for plugin in report.plugins}
    blocked = {*installed_among(without), *(name for name in without if name in own)}
    try:
        return replace(report, rows=tuple(_draw(RunDirectory.open(report.path), count, blocked)))
    except SftplugError as error:
        return replace(report, rows_note=redact(f"They cannot be drawn: {error}"))


class _Enough(Exception):
    """All rows that are wanted have been seen."""


def _draw(directory: RunDirectory, count: int, without: Iterable[str]) -> list[PreviewRow]:
    from sftplug.previewing import Collector

    found, wanted = kept(directory, without), range(count)
    recipe = found.recipe
    packed = recipe.data.packing == "rows"
    if not packed and all(source.share is None and source.epochs == 1 for source in recipe.data.train):
        collector = Collector(wanted)
        _watch(found, collector, count)
        return collector.rows
    # Which rows share a packed row is known only when all have been prepared.
    order = replay(directory, without=without).order or ()
    documents = {number for row in order[:count] for number in row}
    collector = Collector(documents)
    _watch(found, collector, max(documents, default=-1) + 1)
    return collector.arranged(order, wanted, packed=packed)


def _watch(found: KeptInputs, collector: Collector, enough: int) -> None:
    """Prepare rows until `collector` has seen `enough` of them."""
    from sftplug.data.prepare import prepare

    def watch(
        texts: Sequence[TextRow], tokens: TokenBatch, weights: NDArray[np.float32], kept: NDArray[np.bool_]
    ) -> None:
        collector(texts, tokens, weights, kept)
        if collector.seen >= enough:
            raise _Enough

    with suppress(_Enough):
        prepare(found.recipe, found.tokenizer, end_tokens=found.end_tokens, watch=watch)
