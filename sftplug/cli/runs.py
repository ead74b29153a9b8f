"""Arguments and steps that the commands on a finished run share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug.cli.options import prepare_rows, warn
from sftplug.errors import DataError

if TYPE_CHECKING:
    from sftplug.recipe import LoadedRecipe
    from sftplug.run import RunDirectory
    from sftplug.ship.rows import Measured, Selection

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
    from sftplug.ship import rows

    if (data is None) != (format is None):
        raise typer.BadParameter("--data and --format go together.")
    if data is None:
        return loaded, rows.held_out(loaded.recipe)
    source = json.dumps({"path": str(Path(data).resolve()) if "://" not in data else data, "format": _format(format)})
    given = [f"data.train=[{source}]", "data.eval=[]", "data.eval_fraction=0", *overrides]
    loaded = directory.load_recipe(*given)
    return loaded, rows.given(loaded.recipe)


def _format(text: str | None) -> object:
    from sftplug.recipe.yaml import parse_yaml

    return parse_yaml(text or "", name="--format", base=Path.cwd()).data


def prepare_selected(loaded: LoadedRecipe, selection: Selection, remedy: str, *, provenance: bool = False) -> Measured:
    """Return the selected rows as tokens; where they cannot be had any more, the error says the `remedy`."""
    try:
        chosen = replace(loaded, recipe=selection.recipe)
        return selection.of(prepare_rows(chosen, quiet=True, provenance=provenance))
    except DataError as error:
        raise DataError(f"{error}\n{remedy}") from error
