"""``sftplug check``"""

from __future__ import annotations

import typer

from sftplug.cli.options import NoPlugin, Output, Overrides, RecipeName, Verbose, be_verbose, open_recipe, tell
from sftplug.errors import ModelError


def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Output = None,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Check everything that can be known without loading weights; exit 0, or 2 with every problem at once.

    First the recipe alone and the folder of the run, at once; if they are right, tokenizer, template, rows, masks, and
    the adapter's targets.
    """
    from rich import get_console

    from sftplug.api.recipes import examine
    from sftplug.planning import show_parts

    be_verbose(verbose)
    found = examine(open_recipe(recipe, overrides, no_plugin, output, command="check"))
    tell(found.notes)
    if found.problems:
        raise ModelError("\n".join(found.problems))
    if found.size is not None:
        show_parts(found.size, get_console())
    typer.echo(f"{recipe}: everything that can be known without weights is right")
