"""``sftplug explain``"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sftplug.cli.display import show
from sftplug.cli.options import NoPlugin, RecipeName, Verbose, be_verbose, open_recipe
from sftplug.errors import Problem, RecipeError, did_you_mean
from sftplug.recipe import LoadedRecipe
from sftplug.recipe.origins import Origin, origins
from sftplug.util.redact import without_secrets

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
    loaded = open_recipe(recipe, overrides, no_plugin)
    values = _chosen(loaded, [argument for argument in arguments or [] if "=" not in argument])
    if as_json:
        explained = {"values": [asdict(value) for value in values], "plugins": loaded.provenance()}
        typer.echo(json.dumps(explained, indent=2, ensure_ascii=False))
        return
    table = Table("value", "is", "from", "plugin")
    for value in values:
        said = json.dumps(value.value, ensure_ascii=False)
        table.add_row(*map(escape, (value.path, said, value.origin, value.plugin or "")))
    show(table)
    if any(_is_in(value.path, "adapter") for value in values) and len(values) < len(origins(loaded)):
        _show_notes(loaded)


def _show_notes(loaded: LoadedRecipe) -> None:
    """Say what the adapter is beside, and what not, where the model is on this machine: nothing is downloaded here."""
    model = loaded.recipe.model
    if model.build is None and not Path(str(model.name_or_path)).is_dir():
        return
    from sftplug.planning import model_notes

    for note in model_notes(loaded.recipe):
        typer.echo(f"note: {note}")


def _chosen(loaded: LoadedRecipe, keys: list[str]) -> list[Origin]:
    values = origins(loaded)
    for key in keys:
        if not any(_is_in(value.path, key) for value in values):
            raise RecipeError(loaded.name, [Problem(key, _nothing_at(key, [value.path for value in values]))])
    chosen = [value for value in values if not keys or any(_is_in(value.path, key) for key in keys)]
    return [replace(value, value=without_secrets(value.value, value.path.rpartition(".")[2])) for value in chosen]


def _is_in(path: str, key: str) -> bool:
    return path == key or path.startswith((f"{key}.", f"{key}["))


def _nothing_at(key: str, paths: list[str]) -> str:
    if key.startswith("train."):
        return "is not set, so the trainer's own default holds: see the fields of trl.SFTConfig."
    return f"there is no such value.{did_you_mean(key, [*paths, *(path.rpartition('.')[0] for path in paths)])}"
