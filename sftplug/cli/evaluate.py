"""``sftplug eval``"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sftplug.cli.options import Verbose, be_verbose
from sftplug.cli.runs import Data, Format, Json, Run, choose_rows, open_run, prepare_selected
from sftplug.errors import DataError

_OTHER_ROWS = "Rows to measure on can be given with --data FILE --format NAME."


def evaluate(  # noqa: PLR0913 - an argument is an option of the command
    run: Run,
    data: Data = None,
    format: Format = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows at a time; by default as the run evaluates.")
    ] = None,
    exact_match: Annotated[
        int,
        typer.Option("--exact-match", metavar="N", min=0, help="Also answer N rows, and count exact replies."),
    ] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure the model of RUN on the rows that it held out: loss, perplexity and accuracy of the trained tokens.

    Of all of them, and of those of each source, role and part of a turn.
    """
    be_verbose(verbose)
    directory, loaded = open_run(run)
    loaded, selection = choose_rows(directory, loaded, data, format)
    if selection is None:
        raise DataError(f"the run in {run} held no rows out. {_OTHER_ROWS}")
    rows = prepare_selected(loaded, selection, _OTHER_ROWS, provenance=True)
    from sftplug.ship.measure import measure

    result = measure(directory, selection.recipe, rows, batch_size, exact_match)
    typer.echo(json.dumps(result, indent=2)) if as_json else _show(result)


def _show(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sftplug.cli.display import say, show

    table = Table("", "loss", "perplexity", "accuracy", "tokens")
    table.add_row("all", *_cells(result))
    for kind, groups in result["by"].items():
        for name, numbers in groups.items():
            table.add_row(escape(f"{kind} {name}"), *_cells(numbers))
    show(table)
    if "exact_match" in result:
        exact = result["exact_match"]
        say(f"exact match: {exact['right']} of {exact['rows']} replies ({exact['share']:.1%})")
    say(f"on {result['rows']} {result['measured_on']}")


def _cells(numbers: dict[str, float]) -> tuple[str, ...]:
    loss, perplexity = f"{numbers['loss']:.4f}", f"{numbers['perplexity']:.4g}"
    return loss, perplexity, f"{numbers['accuracy']:.2%}", f"{numbers['tokens']:,}"
