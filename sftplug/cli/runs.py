"""Arguments and steps that the commands on a finished run share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug.api import result
from sftplug.cli.options import warn

if TYPE_CHECKING:
    from sftplug.recipe import LoadedRecipe
    from sftplug.run import RunDirectory
    from sftplug.ship.rows import Selection

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="Measure on these rows in place of the run's held-out ones."),
]
Format = Annotated[str | None, typer.Option("--format", metavar="NAME", help="Format of the rows in --data.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_run(run: Path, overrides: Sequence[str] = ()) -> tuple[RunDirectory, LoadedRecipe]:
    """Return the folder of a finished run, and its recipe with `overrides`, whose rows may be gone."""
    from sftplug.ship.tuned import open_finished

    directory = open_finished(run)
    loaded = directory.load_recipe(*overrides, rows=False)
    warn(loaded.warnings())
    return directory, loaded


def choose_rows(
    directory: RunDirectory,
    loaded: LoadedRecipe,
    data: str | None,
    format: str | None,
    overrides: Sequence[str] = (),
) -> tuple[LoadedRecipe, Selection | None]:
    """Return the recipe, with the user's rows if there are any, and which of its rows are measured on."""
    if (data is None) != (format is None):
        raise typer.BadParameter("--data and --format go together.")
    return result.choose_rows(loaded, directory, data, _format(format), overrides)


def _format(text: str | None) -> object:
    from sftplug.recipe.yaml import parse_yaml

    return parse_yaml(text or "", name="--format", base=Path.cwd()).data
