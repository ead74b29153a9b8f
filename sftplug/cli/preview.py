"""``sftplug preview``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich
import typer

from sftplug import api
from sftplug.cli.options import NoPlugin, Overrides, RecipeName, Verbose, be_verbose, open_recipe
from sftplug.errors import DataError
from sftplug.storage.writable import refuse_unwritable_file, write_file

if TYPE_CHECKING:
    from sftplug.previewing import PreviewRow


def preview(  # noqa: PLR0913 - the parameters are the command's options
    recipe: RecipeName,
    overrides: Overrides = None,
    count: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many rows to show.")] = 5,
    row: Annotated[int | None, typer.Option("--row", min=0, help="Show this row of the prepared dataset.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page of HTML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Show token ids.")] = False,
    dropped: Annotated[
        bool, typer.Option("--dropped", help="Show rows that are too long, and where they would end.")
    ] = False,
    diff: Annotated[str | None, typer.Option("--diff", metavar="RECIPE", help="Show where two recipes differ.")] = None,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Show which tokens are trained, exactly as the trainer gets them; loads no weights."""
    be_verbose(verbose)
    _refuse_clashes(diff, html, in_terminal=not (html or as_json or dropped))
    wanted = range(row, row + 1) if row is not None else range(count)
    shown = api.preview(open_recipe(recipe, overrides, no_plugin, command="preview"), wanted, dropped=dropped)
    if row is not None and not dropped:
        _refuse_missing(row, shown)
    if diff is not None:
        _show_differences(
            shown.rows, api.preview(open_recipe(diff, overrides, no_plugin, command="preview"), wanted).rows
        )
    if html is not None:
        write_file(html, shown.to_html())
        typer.echo(f"wrote {html}", err=as_json)
    if as_json:
        typer.echo(json.dumps({"rows": [item.to_dict() for item in shown.rows], "facts": shown.facts}))
    elif html is None and diff is None:
        shown.show(rich.get_console(), ids=ids)
    if shown.refusal is not None:
        raise shown.refusal


def _refuse_clashes(diff: str | None, html: Path | None, *, in_terminal: bool) -> None:
    if diff is not None and not in_terminal:
        raise typer.BadParameter("--diff is shown in the terminal: leave out --html, --json and --dropped.")
    if html is not None:
        refuse_unwritable_file(html)


def _refuse_missing(row: int, shown: api.Preview) -> None:
    if not shown.rows and shown.refusal is None:
        raise DataError(f"there is no row {row}: {shown.facts['rows']:,} rows reach the trainer, counted from 0.")


def _show_differences(first: Sequence[PreviewRow], second: Sequence[PreviewRow]) -> None:
    from sftplug.previewing.terminal import differences

    console = rich.get_console()
    texts = list(differences(first, second, marks=console.no_color or not console.is_terminal))
    for text in texts:
        console.print(text, "")
    if texts:
        typer.echo("red, [-…-]: more weight in the first recipe; green, {+…+}: more weight in the second")
    typer.echo(f"{len(texts)} of {len(first)} rows are trained differently")
