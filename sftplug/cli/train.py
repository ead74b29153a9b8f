"""``sftplug train``"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sftplug.cli.options import (
    NoPlugin,
    Output,
    Overrides,
    RecipeName,
    Verbose,
    be_verbose,
    prepare_rows,
    read_recipe,
    shown,
    tell,
)
from sftplug.errors import ModelError, SftplugError
from sftplug.processes import is_launched, is_main, leave
from sftplug.recipe import LoadedRecipe
from sftplug.recipe.origins import origin_by_path


def train(  # noqa: PLR0913 - an argument is an option of the command
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder; never begin one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in the folder, and begin.")] = False,
    launch: Annotated[
        str | None,
        typer.Option("--launch", metavar="STRATEGY,KEY=VALUE…", help="Several processes, as in: ddp,processes=2."),
    ] = None,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Train a recipe, and save the model or adapter.

    An unfinished run of the same recipe in the output folder is resumed from its last checkpoint.
    """
    be_verbose(verbose)
    if resume and overwrite:
        raise typer.BadParameter("--resume goes on with a run, --overwrite deletes it: choose one.")
    loaded = read_recipe(recipe, [*(overrides or []), *launch_overrides(launch)], no_plugin, output)
    if loaded.recipe.launch is not None and not is_launched():
        from sftplug.launch import start

        start(loaded.recipe, loaded.recipe.launch, sys.argv[1:])
    else:
        _train(shown(loaded), resume=resume, overwrite=overwrite)
    if loaded.recipe.evaluation.metrics:
        _measure(loaded)


def _measure(loaded: LoadedRecipe) -> None:
    """Let the model answer, in one process; what another launcher has started knows of no end of the others."""
    from sftplug.cli.evaluate import measure_replies

    if not is_launched():
        try:
            measure_replies(loaded)
        except SftplugError as error:
            output = loaded.recipe.output
            error.add_note(f"The run itself is over: its result is saved in {output}. `sftplug eval` measures it anew.")
            raise
    elif is_main() and loaded.recipe.launch is None:
        typer.echo(f"`sftplug eval {loaded.recipe.output}` measures the replies, in one process.", err=True)


def launch_overrides(launch: str | None) -> list[str]:
    """Return ``ddp,processes=2`` as overrides of the recipe's ``launch`` section."""
    parts = [part.strip() for part in launch.split(",")] if launch else []
    return [f"launch.{part if '=' in part else f'strategy={part}'}" for part in parts]


def _train(loaded: LoadedRecipe, *, resume: bool, overwrite: bool) -> None:
    """Train in this process, which may be one of several."""
    from sftplug.notices import notices
    from sftplug.preflight import problems_before_rows
    from sftplug.run import begin
    from sftplug.training import join
    from sftplug.training import train as run

    join(loaded.recipe)
    with begin(loaded, resume=resume, overwrite=overwrite) as attempt:
        loaded = attempt.loaded
        if is_main():
            loaded.call("sftplug_recipe_loaded", origins=origin_by_path(loaded))
        for note in attempt.notes:
            typer.echo(note, err=True)
        if attempt.checkpoint is not None and is_main():
            typer.echo(f"resuming from step {attempt.checkpoint.step}", err=True)
        if is_main():
            tell(notices(loaded))
        # Preparing many rows takes long: what cannot work anyway is said before.
        if problems := problems_before_rows(loaded.recipe):
            raise ModelError("\n".join(problems))
        prepared = prepare_rows(loaded, quiet=not is_main())
        run(loaded, prepared, attempt)
    leave()
