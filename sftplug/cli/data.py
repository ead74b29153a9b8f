"""``sftplug data``"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.util.text import visible


def data(  # noqa: PLR0913 - an argument is an option of the command
    source: Annotated[str, typer.Argument(metavar="PATH|hub:NAME", help="A file, folder, pattern or URL; or the Hub.")],
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Split of a folder, or on the Hub.")
    ] = None,
    config: Annotated[str | None, typer.Option("--config", metavar="NAME", help="Configuration of a dataset.")] = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="How to read the rows: a name, or YAML.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Tell lengths in its tokens too.")
    ] = None,
    first: Annotated[int | None, typer.Option("-n", "--first", min=1, help="Look at so many rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Show what is in a dataset, without a recipe: columns, format, turns, lengths, and a recipe for it.

    Rows are read one after the other; nothing in them is run or opened.
    """
    from sftplug.api.inspecting import inspect_data
    from sftplug.api.progress import show_progress

    be_verbose(verbose)
    with show_progress() as progress:
        found = inspect_data(
            source,
            split=split,
            config=config,
            format=_format(format),
            model=model,
            first=first,
            without=no_plugin or (),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(map(visible, str(found).splitlines())))


def _format(text: str | None) -> Any:
    """Return what is written behind ``--format``: a name, or a mapping on one line."""
    from pathlib import Path

    from sftplug.recipe.yaml import parse_yaml

    return parse_yaml(text, name="--format", base=Path()).data if text is not None else None
