"""``sftplug export``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.cli.runs import Json, Run, open_run
from sftplug.errors import Problem, RecipeError


def export(  # noqa: PLR0913 - an argument is an option of the command
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an installed exporter, such as zip.")],
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

    `sftplug plugins` lists the exporters, and a recipe names under `export:` those that follow a training.
    """
    be_verbose(verbose)
    given = dict(_option(option) for option in options or ())
    written = open_run(run, no_plugin).export(name, output, **given)
    typer.echo(json.dumps({"exporter": name, "output": str(written)}) if as_json else f"exported: {written}")


def _option(text: str) -> tuple[str, Any]:
    from sftplug.recipe.yaml import parse_yaml

    name, sign, value = text.partition("=")
    if not (sign and name):
        raise RecipeError("export", [Problem(text, "an option is written as OPTION=VALUE.")])
    return name, parse_yaml(value, text, Path()).data
