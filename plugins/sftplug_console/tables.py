"""What is shown at the moments of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich
from rich.markup import escape
from rich.table import Table

from sftplug_console.curve import draw_curve

if TYPE_CHECKING:
    from sftplug import Recipe


def show_recipe(recipe: Recipe) -> None:
    """Show what the recipe chose."""
    table = Table(show_header=False, box=None, pad_edge=False)
    build = recipe.model.build
    table.add_row("model", escape(str(build.type if build else recipe.model.name_or_path)))
    if recipe.model.trust_remote_code:
        table.add_row(
            "", f"[bold red]runs code that comes with the model, revision {escape(str(recipe.model.revision))}"
        )
    table.add_row("template", recipe.chat_template.type)
    table.add_row("masking", ", ".join(" + ".join(part.type for part in union) for union in recipe.masking))
    table.add_row("quantization", recipe.quantization.type)
    table.add_row("adapter", recipe.adapter.type)
    table.add_row("output", escape(recipe.output))
    rich.get_console().print(table)


def show_ledger(ledger: Any) -> None:
    """Show what became of every row, source by source."""
    table = Table("split", "source", "read", "kept", "dropped", "added", "tokens", "trained", "length 50% / 99% / max")
    for split, account in ledger.accounts():
        facts = account.to_dict()
        lengths = facts["length_quantiles"]
        table.add_row(
            split,
            escape(account.source.rpartition("/")[2]),
            f"{account.read:,}",
            f"{account.kept:,}",
            ", ".join(f"{count:,} {stage}" for stage, count in account.dropped.items()) or "-",
            f"{account.added:,}" if account.added else "-",
            f"{account.tokens:,}",
            f"{facts['trained_share']:.0%}",
            " / ".join(str(lengths.get(name, "-")) for name in ("50%", "99%", "100%")),
        )
    console = rich.get_console()
    console.print(table)
    stops = ", ".join(f"{escape(stop)} ({turns:,} turns)" for stop, turns in ledger.stops.items())
    console.print(f"stops learned: {stops or 'none'}", highlight=False)
    for _, account in ledger.accounts():
        for kind, rows in account.noted.items():
            console.print(f"note: {rows:,} rows: {kind}; {escape(account.reasons[kind][0])}", highlight=False)


def show_size(recipe: Recipe, size: Any) -> None:
    """Show which modules are trained, and how much memory the weights take."""
    modules = ", ".join(f"{escape(name)} ({count})" for name, count in sorted(size.modules.items()))
    share = size.trainable / size.total if size.total else 0.0
    console = rich.get_console()
    console.print(
        f"{recipe.adapter.type} trains {size.trainable:,} of {size.total:,} parameters ({share:.2%}): {modules}"
    )
    console.print(f"weights take {size.bytes:,} bytes as {recipe.quantization.type}")


def show_result(result: Any) -> None:
    """Show the loss curve and where the result is."""
    console = rich.get_console()
    losses = [float(entry["loss"]) for entry in result.log if "loss" in entry]
    if len(losses) > 1:
        console.print("loss")
        for line in draw_curve(losses, width=min(60, console.width - 12)):
            console.print(line, highlight=False)
    speed = result.tokens / result.seconds if result.seconds else 0.0
    console.print(f"trained on {result.tokens:,} tokens in {result.seconds:.1f} s ({speed:,.0f} tokens/s)")
    console.print(f"saved in {escape(str(result.output))}", highlight=False)


def show_failure(error: BaseException) -> None:
    """Say that the run ended early."""
    rich.get_console().print(f"[red]the run stopped: {type(error).__name__}")
