"""``sftplug train``"""

from __future__ import annotations

from typing import Annotated

import typer

from sftplug.cli.evaluate import show_replies
from sftplug.cli.options import NoPlugin, Output, Overrides, RecipeName, Verbose, be_verbose, read_recipe
from sftplug.util.processes import leave


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
    from sftplug.api.runs import run_recipe
    from sftplug.run.recognized import begun_with_formats

    be_verbose(verbose)
    if resume and overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite deletes it: choose one.")
    more = [*(overrides or []), *launch_overrides(launch)]
    begun = None if overwrite else begun_with_formats
    loaded = read_recipe(recipe, more, no_plugin, output, command="train", begun=begun)
    run = run_recipe(loaded, resume=resume, overwrite=overwrite, show=True)
    if run is not None and run.replies is not None:
        show_replies(run.replies)
    leave()


def launch_overrides(launch: str | None) -> list[str]:
    """Return ``ddp,processes=2`` as overrides of the recipe's ``launch`` section."""
    parts = [part.strip() for part in launch.split(",")] if launch else []
    return [f"launch.{part if '=' in part else f'strategy={part}'}" for part in parts]
