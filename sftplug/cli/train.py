"""``sftplug train``"""

from __future__ import annotations

from typing import Annotated

import typer

from sftplug.cli.options import (
    NoPlugin,
    Output,
    Overrides,
    RecipeName,
    Verbose,
    be_verbose,
    open_recipe,
    prepare_rows,
)
from sftplug.errors import ModelError


def train(  # noqa: PLR0913 - an argument is an option of the command
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder; never begin one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder, and begin.")] = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Train a recipe, and save the model or adapter.

    An unfinished run of the same recipe in the output folder is resumed from its last checkpoint.
    """
    be_verbose(verbose)
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with a run, --overwrite deletes it: choose one.")
    loaded = open_recipe(recipe, overrides, no_plugin, output)
    from sftplug.preflight import problems_before_rows
    from sftplug.run import begin

    with begin(loaded, resume=resume, overwrite=overwrite) as attempt:
        loaded.call("sftplug_recipe_loaded")
        for note in attempt.notes:
            typer.echo(note, err=True)
        if attempt.checkpoint is not None:
            typer.echo(f"resuming from step {attempt.checkpoint.step}", err=True)
        # Preparing many rows takes long: what cannot work anyway is said before.
        if problems := problems_before_rows(loaded.recipe):
            raise ModelError("\n".join(problems))
        prepared = prepare_rows(loaded)
        from sftplug.training import train as run

        run(loaded, prepared, attempt)
