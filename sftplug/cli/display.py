"""Print tables: with boxes and colour on a terminal, plain and never cut anywhere else."""

from __future__ import annotations

import io
import textwrap

import rich
import rich.box
import typer
from rich.console import Console
from rich.table import Table

WIDE = 100_000
"""As wide as any table; nobody looks at a pipe."""


def show(table: Table) -> None:
    """Print `table`."""
    console = rich.get_console()
    if console.is_terminal:
        table.box, table.header_style = rich.box.SIMPLE_HEAD, "bold"
        console.print(table)
        return
    table.box, table.pad_edge, table.show_lines = None, False, False
    table.padding = (0, 2, 0, 0)
    for column in table.columns:
        column.no_wrap = True
    plain = Console(file=io.StringIO(), width=WIDE, color_system=None, force_terminal=False)
    with plain.capture() as capture:
        plain.print(table)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def narrow(text: str, width: int = 60) -> str:
    """Return `text` in lines of a column, where it is not a terminal that wraps them."""
    if rich.get_console().is_terminal:
        return text
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def say(text: str, style: str | None = None) -> None:
    """Print a line as it is, without markup; in `style` on a terminal."""
    rich.get_console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)
