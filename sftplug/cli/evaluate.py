"""``sftplug eval``"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftplug.cli.options import NoPlugin, Verbose, be_verbose
from sftplug.cli.runs import Data, Format, Json, Run, open_run, read_format

if TYPE_CHECKING:
    from sftplug.api.result import Measuring


def evaluate(  # noqa: PLR0913 - an argument is an option of the command
    run: Run,
    data: Data = None,
    format: Format = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows at a time; by default as the run evaluates.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="NAME[,NAME…]",
            help="Also let the model answer, and measure its replies by these, in place of the recipe's; or YAML.",
        ),
    ] = None,
    replies: Annotated[
        int | None, typer.Option("--replies", metavar="N", min=0, help="Answer so many rows; 0 answers all.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="Longest reply.")] = None,
    as_json: Json = False,
    no_plugin: NoPlugin = None,
    verbose: Verbose = False,
) -> None:
    """Measure the model of RUN on the rows that it held out: loss, perplexity and accuracy of the trained tokens.

    Of all of them, and of those of each source, role and part of a turn. With metrics, the model also answers rows by
    itself, and its replies are measured; of held-out rows, the result is added to the metrics of the run.
    """
    be_verbose(verbose)
    given, measuring = read_format(data, format), _measuring(metrics, replies, max_new_tokens)
    result = open_run(run, no_plugin).evaluate(data, given, batch_size=batch_size, **measuring)
    typer.echo(json.dumps(result, indent=2)) if as_json else _show(result)


def _measuring(metrics: str | None, replies: int | None, max_new_tokens: int | None) -> Measuring:
    """Return what the command line says in the place of the recipe's ``evaluation`` section."""
    from sftplug.recipe.yaml import parse_yaml

    found: Measuring = {}
    if metrics is not None:
        listed = metrics.strip()
        text = listed if listed.startswith(("[", "{")) else f"[{listed}]"
        found["metrics"] = parse_yaml(text, name="--metrics", base=Path.cwd()).data
    if replies is not None:
        found["replies"] = replies
    if max_new_tokens is not None:
        found["max_new_tokens"] = max_new_tokens
    return found


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
    say(f"on {result['rows']} {result['measured_on']}")
    if "metrics" in result:
        show_replies(result)


def show_replies(result: Mapping[str, Any]) -> None:
    """Show what metrics say of replies."""
    from rich.markup import escape
    from rich.table import Table

    from sftplug.cli.display import say, show

    table = Table("metric", "source", "mean", "rows")
    for name, numbers in result["metrics"].items():
        table.add_row(escape(name), "all", f"{numbers['mean']:.4f}", f"{numbers['rows']:,}")
        sources = numbers["by_source"] if len(numbers["by_source"]) > 1 else {}
        for source, of in sources.items():
            table.add_row("", escape(source), f"{of['mean']:.4f}", f"{of['rows']:,}")
        for tag, values in numbers.get("by_tag", {}).items():
            for value, of in values.items():
                table.add_row("", escape(f"{tag} {value}"), f"{of['mean']:.4f}", f"{of['rows']:,}")
    show(table)
    say(f"replies to {result['replies']} of {result['rows']} {result['measured_on']}")


def _cells(numbers: dict[str, float]) -> tuple[str, ...]:
    loss, perplexity = f"{numbers['loss']:.4f}", f"{numbers['perplexity']:.4g}"
    return loss, perplexity, f"{numbers['accuracy']:.2%}", f"{numbers['tokens']:,}"
