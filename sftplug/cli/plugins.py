"""``sftplug plugins``: list the installed plugins; the group of the commands that concern plugins."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sftplug.cli.display import narrow, show
from sftplug.cli.options import NoPlugin, Verbose, be_verbose, tell, warn
from sftplug.cli.plugins_index import add_plugin, search_plugins
from sftplug.cli.plugins_show import show_plugin
from sftplug.plugin.additions import Commands, plugin_commands, plugin_recipes
from sftplug.plugin.manager import load_plugins
from sftplug.types.kind_names import KIND_NAMES

plugins = typer.Typer(
    help="List the installed plugins: distribution, version, what each offers, where it comes from.",
    invoke_without_command=True,
)
plugins.command("show")(show_plugin)
plugins.command("search")(search_plugins)
plugins.command("add")(add_plugin)


@plugins.callback()
def _list(context: typer.Context, no_plugin: NoPlugin = None, verbose: Verbose = False) -> None:
    be_verbose(verbose)
    context.obj = no_plugin or []  # a command of the group blocks them too
    if context.invoked_subcommand is None:
        root: Any = context.find_root().command
        _print_plugins(context.obj, plugin_commands(frozenset(root.commands), context.obj))


def _print_plugins(blocked: list[str], commands: Commands) -> None:
    from sftplug.plugin.quality import quality_of
    from sftplug.recipe.given import LoadRequest
    from sftplug.recipe.house import house_above
    from sftplug.recipe.named_plugins import load_named_plugins
    from sftplug.recipe.rules import why_active
    from sftplug.recipe.yaml import Tree

    house = house_above(Path())
    registry, wrong, _ = load_named_plugins(Tree({}), house, LoadRequest("", blocked=tuple(blocked)))
    found, why = registry.plugins, why_active(house, registry)
    recipes = plugin_recipes(broken=commands.broken, blocked=blocked)
    table = Table("plugin", "distribution", "version", "offers", "quality", "source")
    for name, plugin in found.loaded.items():
        offers = [
            f"{kind.__name__}: {', '.join(mine)}"
            for kind, listed in registry.offers.items()
            if (mine := [key for key, offer in listed.items() if offer.plugin.name == name])
        ]
        mine = [command.name for command in commands.found.values() if command.plugin.name == name]
        offers += [f"commands: {', '.join(mine)}"] if mine else []
        shipped = [recipe for recipe, (owner, _) in recipes.items() if owner.name == name]
        offers += [f"recipes: {', '.join(shipped)}"] if shipped else []
        offers += [f"in use for every recipe: {why[name]}"] if name in why else []
        quality = str(quality_of(plugin, registry) or "")
        columns = "\n".join(map(narrow, offers)) or "watches", narrow(quality)
        table.add_row(name, plugin.distribution, plugin.version, *map(escape, columns), plugin.module.__name__)
    show(table)
    tell(replace(house, blocked=found.blocked).told())
    warn(dict.fromkeys([*registry.warnings(), *map(str, wrong), *commands.clashes.values(), *commands.broken]))


@plugins.command()
def new(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"One of: {', '.join(KIND_NAMES)}."),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the package, such as my-format.")],
    folder: Annotated[Path, typer.Option("--dir", metavar="D", help="Where its folder is made.")] = Path(),
) -> None:
    """Write the package of a new plugin: a component that works, its tests, a recipe that uses it."""
    from sftplug.plugin.registry import build_registry
    from sftplug.scaffold import write_package
    from sftplug.storage.writable import refuse_unwritable

    refuse_unwritable(folder / name, "--dir")
    registry = build_registry(load_plugins(blocked=context.obj))
    for file in write_package(kind, name, folder, registry):
        typer.echo(str(file))
    typer.echo(f"\nNext: cd {folder / name}; pip install -e '.[test]'; pytest; sftplug train recipe.yaml")


@plugins.command("test")
def examine(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Folder of a package that is installed from it.")
    ] = Path(),
) -> None:
    """Run the tests of a package, and write beside its plugins which laws they have kept, and with which versions.

    `sftplug plugins` works a tier out of that, wherever the package is installed.
    """
    done = subprocess.run([sys.executable, "-m", "sftplug.testing", str(folder)], check=False)
    raise typer.Exit(done.returncode)
