"""``sftplug explain``"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sftplug import api
from sftplug.cli.display import show
from sftplug.cli.options import NoPlugin, RecipeName, Verbose, be_verbose, open_recipe

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY] [SECTION.KEY=VALUE]…", help="What to explain, and values to set first."),
]


def explain(
    recipe: RecipeName,
    arguments: Arguments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Show the resolved recipe: where each value comes from, and which plugin answers for it.

    Asked for ``adapter`` alone, and where the model is on this machine, it says too which modules are adapted.
    """
    be_verbose(verbose)
    overrides = [argument for argument in arguments or [] if "=" in argument]
    loaded = open_recipe(recipe, overrides, no_plugin, command="explain")
    explained = api.explain(loaded, *(argument for argument in arguments or [] if "=" not in argument))
    if as_json:
        typer.echo(json.dumps(explained.to_dict(), indent=2, ensure_ascii=False))
        return
    show(explained.table())
    for note in explained.notes:
        typer.echo(f"note: {note}")
