"""``sftplug recipes``: list, show and copy the shipped recipes, and the scripts that start them elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sftplug.cli.display import show as show_table
from sftplug.cli.options import NoPlugin, warn
from sftplug.cli.proofs import prove
from sftplug.cli.schema import SCHEMA_FILE, write_schema
from sftplug.errors import Problem, RecipeError
from sftplug.plugin.manager import load_plugins, refuse_unknown_blocks
from sftplug.storage.writable import refuse_unwritable

if TYPE_CHECKING:
    from sftplug.recipe.shipped import ShippedRecipe
    from sftplug.recipe.yaml import LocatedStr

recipes = typer.Typer(help="List, show and copy the shipped recipes and launch scripts.", invoke_without_command=True)


_YAML = (".yaml", ".yml")


@recipes.callback()
def _list(  # noqa: PLR0913 - the parameters are the command's options
    context: typer.Context,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="24GB", help="List what is made for GPUs of so much in all.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TEXT", help="List what has this text in its name or its model's.")
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof", help="Prove what is listed without weights: takes seconds for each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_plugin: NoPlugin = None,
) -> None:
    context.obj = no_plugin or []  # a command of the group blocks them too
    refuse_unknown_blocks(context.obj)
    asked = [name for name, said in (("--memory", memory), ("--model", model)) if said is not None]
    asked += [name for name, said in (("--proof", proof), ("--json", as_json)) if said]
    if context.invoked_subcommand is not None:
        if asked:
            raise typer.BadParameter(f"{', '.join(asked)}: it is for the list, not for `{context.invoked_subcommand}`.")
        return
    broken: list[str] = []
    found = _chosen(memory, model, context.obj, broken)
    warn(broken)
    if proof:
        prove(found, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps([recipe.to_dict() for recipe in found], indent=2))
    else:
        show_table(_table(found, scripts=not asked))


def _chosen(memory: str | None, model: str | None, blocked: list[str], broken: list[str]) -> list[ShippedRecipe]:
    from sftplug.api.planning import parse_bytes
    from sftplug.recipe.shipped import chosen, every_recipe

    limit = parse_bytes(memory, "--memory") if memory is not None else None
    return chosen(every_recipe(blocked, broken), limit, model)


def _table(found: list[ShippedRecipe], *, scripts: bool) -> Table:
    from sftplug.recipe.find import launch_scripts
    from sftplug.recipe.shipped import purpose

    table = Table("recipe", "what it is for", "hardware", "from")
    own = [recipe for recipe in found if recipe.source == "sftplug"]
    for recipe in own:
        table.add_row(recipe.name, recipe.purpose, recipe.in_short(), recipe.source)
    for name, file in launch_scripts().items() if scripts else ():
        table.add_row(name, purpose(file), "", "sftplug")
    for recipe in found[len(own) :]:
        table.add_row(recipe.name, recipe.purpose, recipe.in_short(), recipe.source)
    return table


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
    files = _copies(source, target) if is_recipe else {source: target}
    for copied in files.values():
        if copied.exists():
            raise RecipeError(name, [Problem("copy", f"{copied} exists already. Choose another folder.")])
    refuse_unwritable(target.parent, "folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    for original, copied in files.items():
        _copy_file(original, copied, files)
    written = [*files.values(), *([_write_schema_beside(target, context.obj)] if is_recipe else [])]
    typer.echo("\n".join(map(str, written)))


def _copy_file(original: Path, copied: Path, files: Mapping[Path, Path]) -> None:
    if original.suffix in _YAML:
        copied.write_text(_with_new_paths(original, files), encoding="utf-8")
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


def _copies(recipe: Path, target: Path) -> dict[Path, Path]:
    """Return file -> copy beside `target` of a recipe and of every file that it needs."""
    copies = {recipe: target}
    for file in _needed(recipe):
        if file not in copies:
            # granite4/1b_full.yaml extends llama3.2/1b_full.yaml: in one folder, that is llama3.2_1b_full.yaml.
            taken = {copied.name for copied in copies.values()}
            copies[file] = target.parent / (f"{file.parent.name}_{file.name}" if file.name in taken else file.name)
    return copies


def _needed(recipe: Path) -> Iterator[Path]:
    """Yield every file that the recipe names, and that the recipes among them name."""
    for file in _named_files(recipe).values():
        yield file
        if file.suffix in _YAML:
            yield from _needed(file)


def _with_new_paths(recipe: Path, files: Mapping[Path, Path]) -> str:
    """Return the recipe's text, comments and all, with the copies of the files it names beside it."""
    text = recipe.read_text(encoding="utf-8")
    for written, file in _named_files(recipe).items():
        text = text.replace(written, files[file].name)
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
