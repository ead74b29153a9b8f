"""``sftplug runs``"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug.cli.display import show
from sftplug.cli.options import NoPlugin
from sftplug.cli.runs import Json

if TYPE_CHECKING:
    from sftplug.types.listed_run import ListedRun


class State(StrEnum):
    """What a run may say of itself."""

    running = "running"
    finished = "finished"
    failed = "failed"
    interrupted = "interrupted"


class Sort(StrEnum):
    """By what runs are sorted."""

    path = "path"
    state = "state"
    recipe = "recipe"
    model = "model"
    best = "best"
    tokens = "tokens"
    seconds = "seconds"
    bytes = "bytes"


def list_runs(  # noqa: PLR0913 - an argument is an option of the command
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to look.")] = Path(),
    state: Annotated[list[State] | None, typer.Option("--state", help="Only runs in this state; repeatable.")] = None,
    match: Annotated[
        str, typer.Option("--match", metavar="TEXT", help="Only runs with this text in path, recipe or model.")
    ] = "",
    sort: Annotated[Sort, typer.Option("--sort", help="Numbers with the largest first, best with the lowest.")] = (
        Sort.path
    ),
    as_json: Json = False,
    no_plugin: NoPlugin = None,
) -> None:
    """List the runs in and below a folder: state, recipe, model, best metric, tokens, time, size on disk."""
    from sftplug.api.listing import runs
    from sftplug.plugin.manager import refuse_unknown_blocks
    from sftplug.util.text import visible

    refuse_unknown_blocks(no_plugin or (), ())  # records are read, and no plugin is loaded
    found = runs(folder, states=[one.value for one in state or ()], match=match, sort=sort.value)
    for sentence in found.skipped:
        typer.echo(f"note: {visible(sentence)}", err=True)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    if not found.runs:
        typer.echo("no runs", err=True)
        return
    _show(found.runs, folder)
    if len(found.runs) > 1:
        typer.echo("\nsftplug report RUN RUN lays runs over each other.", err=True)


def _show(runs: tuple[ListedRun, ...], folder: Path) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from sftplug.previewing.terminal import marked
    from sftplug.util.redact import redact

    right = [Column(name, justify="right") for name in ("tokens", "time", "on disk")]
    table = Table("run", "state", "recipe", "model", "best", *right)
    for run in runs:
        table.add_row(*(Text(marked(redact(cell))) for cell in _cells(run, folder)))
    show(table)


def _cells(run: ListedRun, folder: Path) -> list[str]:
    from sftplug.reporting.collect import NOTHING
    from sftplug.reporting.facts import STATES, duration

    name = run.path.relative_to(folder) if run.path != folder else run.path
    best = NOTHING if run.best is None else f"{run.metric} {run.best:.4f} at step {run.step:,}"
    said = [str(name), STATES.get(run.state, run.state), run.recipe or NOTHING, run.model or NOTHING, best]
    return [*said, f"{run.tokens:,}", duration(run.seconds), f"{run.bytes / 1e6:,.1f} MB"]
