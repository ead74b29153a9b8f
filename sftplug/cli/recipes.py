"""``sftplug recipes``: list, show and copy the shipped recipes, and the scripts that start them elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sftplug.cli.display import show as show_table
from sftplug.cli.options import NoPlugin, warn
from sftplug.cli.schema import SCHEMA_FILE, write_schema
from sftplug.errors import Problem, RecipeError
from sftplug.plugin.additions import plugin_recipes
from sftplug.plugin.manager import load_plugins, refuse_unknown_blocks
from sftplug.storage.writable import refuse_unwritable

if TYPE_CHECKING:
    from sftplug.recipe.yaml import LocatedStr

recipes = typer.Typer(help="List, show and copy the shipped recipes and launch scripts.", invoke_without_command=True)


_YAML = (".yaml", ".yml")


@recipes.callback()
def _list(context: typer.Context, no_plugin: NoPlugin = None) -> None:
    from sftplug.recipe.find import launch_scripts, shipped_recipes

    context.obj = no_plugin or []  # a command of the group blocks them too
    refuse_unknown_blocks(context.obj)
    if context.invoked_subcommand is not None:
        return
    table = Table("recipe", "what it is for", "from")
    for name, file in {**shipped_recipes(), **launch_scripts()}.items():
        table.add_row(name, purpose(file), "sftplug")
    broken: list[str] = []
    for name, (plugin, file) in plugin_recipes(broken=broken, blocked=context.obj).items():
        table.add_row(name, purpose(file), f"plugin {plugin}")
    show_table(table)
    warn(broken)


def purpose(file: Path) -> str:
    """Return the first comment line of a recipe or script: what it is for."""
    return next(
        (line.lstrip("# ") for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), ""
    )


@recipes.command()
def show(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print a recipe, or a launch script, as it is written."""
    from sftplug.recipe.find import find_shipped

    typer.echo(find_shipped(name, context.obj).read_text(encoding="utf-8"), nl=False)


@recipes.command()
def copy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    destination: Annotated[Path, typer.Argument(metavar="DEST")],
) -> None:
    """Copy a recipe to DEST, a folder or a .yaml file, with the recipes and data files it names; or a launch script.

    The schema of what is installed is written beside a recipe, so that an editor knows every component and option.
    """
    from sftplug.recipe.find import find_shipped

    source = find_shipped(name, context.obj)
    is_recipe = source.suffix in _YAML
    target = (
        destination if destination.suffix in (_YAML if is_recipe else (source.suffix,)) else destination / source.name
    )
    files = {source: target, **(_needed(source, target.parent) if is_recipe else {})}
    for copied in files.values():
        if copied.exists():
            raise RecipeError(name, [Problem("copy", f"{copied} exists already. Choose another folder.")])
    refuse_unwritable(target.parent, "folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    for original, copied in files.items():
        _copy_file(original, copied)
    written = [*files.values(), *([_write_schema_beside(target, context.obj)] if is_recipe else [])]
    typer.echo("\n".join(map(str, written)))


def _copy_file(original: Path, copied: Path) -> None:
    if original.suffix in _YAML:
        copied.write_text(_with_new_paths(original), encoding="utf-8")
    else:
        shutil.copy(original, copied)  # a script stays one that can be run


def _write_schema_beside(recipe: Path, blocked: list[str]) -> Path:
    from sftplug.plugin.registry import build_registry

    beside = recipe.parent / SCHEMA_FILE
    write_schema(beside, build_registry(load_plugins(blocked)))
    return beside


def _named_files(recipe: Path) -> dict[str, Path]:
    """Return path as written -> file for every file that a recipe names by a relative path."""
    from sftplug.recipe.section import resolve_path
    from sftplug.recipe.yaml import read_yaml

    texts = {str(text): Path(resolve_path(text)) for text in _strings(read_yaml(recipe).data)}
    return {text: file for text, file in texts.items() if not Path(text).is_absolute() and file.is_file()}


def _needed(recipe: Path, folder: Path) -> dict[Path, Path]:
    """Return file -> copy in `folder` of every file that the recipe names, and that the recipes among them name."""
    needed: dict[Path, Path] = {}
    for file in _named_files(recipe).values():
        needed[file] = folder / file.name
        if file.suffix in _YAML:
            needed.update(_needed(file, folder))
    return needed


def _with_new_paths(recipe: Path) -> str:
    """Return the recipe's text, comments and all, with the files it names beside it."""
    text = recipe.read_text(encoding="utf-8")
    for written, file in _named_files(recipe).items():
        text = text.replace(written, file.name)
    return re.sub(rf"(\$schema=)\S*{re.escape(SCHEMA_FILE)}", rf"\1{SCHEMA_FILE}", text)


def _strings(data: object) -> Iterator[LocatedStr]:
    from sftplug.recipe.yaml import LocatedStr

    if isinstance(data, LocatedStr):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _strings(value)
    elif isinstance(data, list):
        for value in data:
            yield from _strings(value)
