"""``sftplug plan``"""

from __future__ import annotations

import json
from typing import Annotated

import rich
import typer

from sftplug import api
from sftplug.cli.options import NoPlugin, Overrides, RecipeName, Verbose, be_verbose, open_recipe
from sftplug.util.device import find_device


def plan(  # noqa: PLR0913 - the parameters are the command's options
    recipe: RecipeName,
    overrides: Overrides = None,
    memory: Annotated[str | None, typer.Option("--memory", metavar="24GB", help="Memory that it must fit in.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Device to plan for: H100, RTX4090, cpu …")
    ] = None,
    row_count: Annotated[
        int | None, typer.Option("--rows", metavar="N", min=1, help="Plan for so many rows, and read none.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Say what a run will cost in memory and time; loads no weights, and downloads no more than the configuration.

    Rows are counted where they lie on this machine, which needs the tokenizer. With --memory, or a --device whose
    memory is known, exit 1 if the run may not fit, after saying what to change.
    """
    from sftplug.api.planning import parse_bytes

    be_verbose(verbose)
    named = find_device(device) if device is not None else None
    limit = parse_bytes(memory, "--memory") if memory is not None else None
    loaded = open_recipe(recipe, overrides, no_plugin, device=named, command="plan")
    answer = api.plan(loaded, limit, device=device, rows=row_count)
    typer.echo(json.dumps(answer.to_dict(), indent=2)) if as_json else answer.show(rich.get_console())
    if not answer.fits:
        raise typer.Exit(1)
