"""``sftplug prepare``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sftplug import api
from sftplug.cli.options import NoPlugin, Overrides, RecipeName, Verbose, be_verbose, open_recipe


def prepare(
    recipe: RecipeName,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the dataset.")],
    overrides: Overrides = None,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Write the dataset exactly as the trainer gets it to DIR/train and DIR/eval; loads no weights."""
    be_verbose(verbose)
    loaded = open_recipe(recipe, overrides, no_plugin, command="prepare")
    prepared = api.prepare(loaded, output)
    typer.echo(f"prepared {len(prepared.train)} rows in {output}")
