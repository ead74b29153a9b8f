"""``sftplug check``"""

from __future__ import annotations

import typer

from sftplug.cli.options import (
    NoPlugin,
    Overrides,
    RecipeName,
    Verbose,
    be_verbose,
    open_recipe,
    prepare_rows,
    tell,
)
from sftplug.recipe.origins import origin_by_path
from sftplug.text import visible


def check(
    recipe: RecipeName, overrides: Overrides = None, no_plugin: NoPlugin = None, verbose: Verbose = False
) -> None:
    """Check everything that can be known without loading weights; exit 0, or 2 with every problem at once.

    First the recipe alone, at once; if that is right, tokenizer, template, rows, masks, and the adapter's targets.
    """
    be_verbose(verbose)
    loaded = open_recipe(recipe, overrides, no_plugin)
    loaded.call("sftplug_recipe_loaded", origins=origin_by_path(loaded))
    from sftplug.errors import ModelError, SftplugError
    from sftplug.models import check_positions
    from sftplug.notices import notices
    from sftplug.plan import model_notes
    from sftplug.preflight import problems_before_rows

    problems = problems_before_rows(loaded.recipe)
    try:
        check_positions(loaded.recipe, prepare_rows(loaded).longest)
    except SftplugError as error:
        problems.append(str(error))
    tell(notices(loaded))
    if problems:
        raise ModelError("\n".join(dict.fromkeys(problems)))
    for note in model_notes(loaded.recipe):
        typer.echo(f"note: {visible(note)}", err=True)
    typer.echo(f"{recipe}: everything that can be known without weights is right")
