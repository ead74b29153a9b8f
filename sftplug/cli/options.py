"""Arguments that several commands share, and how they open a recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftplug.util.processes import is_main
from sftplug.util.text import visible

if TYPE_CHECKING:
    from sftplug.recipe import LoadedRecipe
    from sftplug.util.device import Device

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A path, or the name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]…", help="Values to set over the recipe's.")
]
NoPlugin = Annotated[list[str] | None, typer.Option("--no-plugin", metavar="NAME", help="Do not load this plugin.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks and what the libraries log.")]
Output = Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Folder for the result.")]


def open_recipe(  # noqa: PLR0913 - one for each thing that a command line says
    recipe: str,
    overrides: list[str] | None,
    no_plugin: list[str] | None,
    output: Path | None = None,
    device: Device | None = None,
    *,
    command: str,
) -> LoadedRecipe:
    """Load the recipe with what the command line adds; the console plugin shows what happens, unless it is blocked.

    `device` is what is trained on, if that is not this machine; `command` is what policies are asked about.
    """
    return shown(read_recipe(recipe, overrides, no_plugin, output, device, command=command))


def read_recipe(  # noqa: PLR0913 - one for each thing that a command line says
    recipe: str,
    overrides: list[str] | None,
    no_plugin: list[str] | None,
    output: Path | None = None,
    device: Device | None = None,
    *,
    command: str,
    begun: Any = None,
) -> LoadedRecipe:
    """Load the recipe with what the command line adds, and show nothing; `begun` is that of a `LoadRequest`."""
    from sftplug.recipe.given import LoadRequest
    from sftplug.recipe.load import load_asked

    given = [*(overrides or []), *([f"output={output}"] if output is not None else [])]
    asked = LoadRequest(recipe, tuple(given), tuple(no_plugin or ()), command=command, begun=begun)
    return load_asked(asked, device=device)


def shown(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return the recipe with the console plugin in use; of several processes, the main one shows what is wrong."""
    if is_main():
        warn(loaded.warnings())
        tell(loaded.told())
    return loaded.using("console")


def warn(sentences: Iterable[str]) -> None:
    """Say what is wrong with what is installed and does not stop this command."""
    for sentence in sentences:
        typer.echo(f"warning: {visible(sentence)}", err=True)


def tell(sentences: Iterable[str]) -> None:
    """Say what the user should know of a recipe that is right."""
    for sentence in sentences:
        typer.echo(f"note: {visible(sentence)}", err=True)


def be_verbose(verbose: bool) -> None:
    """Let the libraries log, and trace every hook call, when the user asked for it."""
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
