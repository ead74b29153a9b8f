"""``sftplug export``"""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sftplug.cli.display import show
from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.cli.runs import Json, Run, open_run
from sftplug.errors import Problem, RecipeError

if TYPE_CHECKING:
    from sftplug.plugin.registry import Registry


def export(  # noqa: PLR0913 - an argument is an option of the command
    run: Run,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of an exporter, such as zip; without, all are listed.")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=VALUE]…", help="Options of the exporter.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="Where to write; by default RUN/exports.")
    ] = None,
    as_json: Json = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Write the model of RUN in the form in which another program takes it.

    Without NAME the exporters are listed. A recipe names under `export:` those that follow a training.
    """
    be_verbose(verbose)
    if name is None:
        _list(open_run(run, no_plugin).recipe.registry, as_json)
        return
    given = dict(_option(option) for option in options or ())
    opened = open_run(run, no_plugin)
    written = opened.export(name, output, **given)
    compared = opened.directory.exports().get(str(written.resolve()), {}).get("compared", [])
    if as_json:
        typer.echo(json.dumps({"exporter": name, "output": str(written), "compared": compared}))
        return
    typer.echo(f"exported: {written}")
    for found in compared:
        typer.echo(_compared(found))


def _compared(found: Mapping[str, Any]) -> str:
    """Return how an export compares with the trained model, as one program reads it, in a line."""
    apart = found["difference"]
    return (
        f"compared: read by {found['engine']}, prompts have the same tokens; logits are {apart['relative']:.2%} of "
        f"their deviation apart, the most likely token is the same at {apart['same_top']:.1%} of {apart['positions']} "
        f"positions, and {found['equal_replies']} of {found['prompts']} replies are equal"
    )


def _list(registry: Registry, as_json: bool) -> None:
    """Say which exporters there are, what each writes, and whose it is."""
    from sftplug.plugin.components import Exporter

    offers = sorted(registry.offers[Exporter].items())
    if as_json:
        typer.echo(json.dumps({name: offer.plugin.name for name, offer in offers}))
        return
    table = Table("exporter", "what it writes", "plugin")
    for name, offer in offers:
        table.add_row(*map(escape, (name, (getdoc(offer.component) or "").split("\n\n")[0], offer.plugin.name)))
    show(table)


def _option(text: str) -> tuple[str, Any]:
    from sftplug.recipe.yaml import parse_yaml

    name, sign, value = text.partition("=")
    if not (sign and name):
        raise RecipeError("export", [Problem(text, "an option is written as OPTION=VALUE.")])
    return name, parse_yaml(value, text, Path()).data
