"""``sftplug train``"""

from __future__ import annotations

from sftplug.cli.options import NoPlugin, Output, Overrides, RecipeName, Verbose, be_verbose, open_recipe, prepare_rows


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Output = None,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Train a recipe, and save the model or adapter."""
    be_verbose(verbose)
    loaded = open_recipe(recipe, overrides, no_plugin, output)
    loaded.call("sftplug_recipe_loaded")
    prepared = prepare_rows(loaded)
    from sftplug.training import train as run

    run(loaded, prepared)
