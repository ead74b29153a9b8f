"""``sftplug report``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug import api
from sftplug.cli.display import say, show
from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.storage.writable import refuse_unwritable_file

if TYPE_CHECKING:
    from sftplug.reporting import Report


NAMED = 10
"""How many folders and files that are left out are named."""


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs, or folders that hold some.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page of HTML.")] = None,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=0, help="How many training rows the page shows; 0 prepares none.")
    ] = 3,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Show what came of runs: curves, memory, rows, recipe, answers; several runs laid over each other.

    Of a folder of runs all are shown; what else lies there is left out, and named.

    The page needs no network. It draws rows as they were trained from the sources, if these are still as they were.
    """
    be_verbose(verbose)
    from sftplug.reporting import collect, find_runs
    from sftplug.reporting.rows import refuse_unknown_plugins

    if html is not None:
        refuse_unwritable_file(html)
    there = find_runs(runs)
    _tell_skipped(there.skipped)
    if html is None:
        found = collect(there.runs)
        refuse_unknown_plugins(found, no_plugin or ())  # in words, no row is drawn, and no plugin loaded
        _show(found)
        return
    api.report(there.runs, html, rows=rows, without=no_plugin or ())
    typer.echo(f"wrote {html}")


def _tell_skipped(sentences: Sequence[str]) -> None:
    """Say what is not shown, so that nobody looks for it in the report."""
    for sentence in sentences[:NAMED]:
        typer.echo(f"left out: {sentence}", err=True)
    if len(sentences) > NAMED:
        typer.echo(f"left out: {len(sentences) - NAMED} more", err=True)


def _show(reports: Sequence[Report]) -> None:
    _show_summary(reports)
    for item in reports:
        _show_rows(item, named=len(reports) > 1)
        _show_split(item, named=len(reports) > 1)
        _show_exports(item, named=len(reports) > 1)
    _show_differences(reports)
    _show_answers(reports)


def _show_summary(reports: Sequence[Report]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from sftplug.previewing.terminal import marked
    from sftplug.reporting.collect import NOTHING
    from sftplug.reporting.facts import summary

    facts = [dict(summary(item)) for item in reports]
    for known, item in zip(facts, reports, strict=True):
        if losses := [value for _, value in item.points("loss")]:
            known["loss"] = sparkline(losses)
    table = Table("", *(Column(Text(marked(item.name))) for item in reports))
    for name in dict.fromkeys(name for known in facts for name in known):
        table.add_row(name, *(Text(marked(known.get(name, NOTHING))) for known in facts))
    show(table)
    for item in reports:
        for sentence in item.missing:
            say(marked(sentence), "yellow")


def _show_rows(item: Report, *, named: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from sftplug.previewing.terminal import marked
    from sftplug.reporting.facts import LEDGER, ledger_rows

    if not item.ledger:
        return
    say(f"\nrows{f' of {marked(item.name)}' if named else ''}", "bold")
    table = Table(*LEDGER)
    for line in ledger_rows(item.ledger):
        table.add_row(*(Text(marked(cell)) for cell in line))
    show(table)


def _show_split(item: Report, *, named: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from sftplug.previewing.terminal import marked
    from sftplug.reporting.facts import split_rows

    heads, lines = split_rows(item)
    if lines:
        say(f"\nby source, role, part and tag{f', of {marked(item.name)}' if named else ''}", "bold")
        table = Table(*map(marked, heads))
        for line in lines:
            table.add_row(*(Text(marked(cell)) for cell in line))
        show(table)


def _show_exports(item: Report, *, named: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from sftplug.previewing.terminal import marked
    from sftplug.run.exports import EXPORTS, export_rows

    lines = list(export_rows(item.exports, item.state.steps))
    if lines:
        say(f"\nexports{f' of {marked(item.name)}' if named else ''}, compared with the trained model", "bold")
        table = Table(*EXPORTS)
        for line in lines:
            table.add_row(*(Text(marked(cell)) for cell in line))
        show(table)


def _show_differences(reports: Sequence[Report]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from sftplug.previewing.terminal import marked
    from sftplug.reporting.collect import differing

    if len(reports) < 2:
        return
    say("\nwhat differs between the recipes", "bold")
    table = Table("", *(Column(Text(marked(item.name))) for item in reports))
    for path, values in differing(reports):
        table.add_row(*(Text(marked(cell)) for cell in (path, *values)))
    show(table) if table.row_count else say("nothing but the output folder")


def _show_answers(reports: Sequence[Report]) -> None:
    from sftplug.previewing.terminal import marked
    from sftplug.reporting.facts import answers

    for prompt, found in answers(reports).items():
        say(f"\n{marked(prompt)}", "bold")
        for run, step, answer in sorted(found, key=lambda item: (item[1], item[0])):
            whose = f"{reports[run].name}, " if len(reports) > 1 else ""
            say(f"  {marked(whose)}step {step:,}: {marked(answer) or '(empty)'}")


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return a curve of at most `width` characters, with its first and last value."""
    bars = "▁▂▃▄▅▆▇█"
    picked = [values[round(at * (len(values) - 1) / (width - 1))] for at in range(width)]
    picked = list(values) if len(values) <= width else picked
    low, span = min(picked), (max(picked) - min(picked)) or 1.0
    drawn = "".join(bars[round((value - low) / span * (len(bars) - 1))] for value in picked)
    return f"{values[0]:.3f} {drawn} {values[-1]:.3f}"
