"""``sftplug preview``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich
import typer

from sftplug.cli.options import NoPlugin, Overrides, RecipeName, open_recipe, prepare_rows
from sftplug.errors import DataError, MaskError, SftplugError

if TYPE_CHECKING:
    from sftplug.data.ledger import Ledger
    from sftplug.preview import PreviewRow
    from sftplug.recipe import LoadedRecipe


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
) -> None:
    """Show which tokens are trained, exactly as the trainer gets them; loads no weights."""
    from sftplug.preview.terminal import differences, draw_row

    wanted = range(row, row + 1) if row is not None else range(count)
    shown = collect(recipe, overrides, no_plugin, wanted, dropped=dropped)
    if diff is not None:
        others = collect(diff, overrides, no_plugin, wanted)
        texts = list(differences(shown.rows, others.rows))
        for text in texts:
            rich.get_console().print(text)
        typer.echo(f"{len(texts)} of {len(shown.rows)} rows are trained differently")
    elif as_json:
        typer.echo(json.dumps({"rows": [item.to_dict() for item in shown.rows], "facts": dict(shown.facts)}))
    elif html is not None:
        from sftplug.preview import to_html

        html.write_text(to_html(f"sftplug preview {recipe}", shown.rows, shown.facts), encoding="utf-8")
        typer.echo(f"wrote {html}")
    else:
        for item in shown.rows:
            rich.get_console().print(draw_row(item, ids=ids), "")
        for name, value in shown.facts:
            typer.echo(f"{name}: {value}")
    if shown.refusal is not None:
        raise shown.refusal


@dataclass(frozen=True, slots=True)
class Shown:
    """What there is to see of a recipe's rows."""

    rows: list[PreviewRow]
    facts: list[tuple[str, str]]
    refusal: SftplugError | None
    """Why the rows would not be trained; the good ones are shown all the same."""


def collect(
    recipe: str, overrides: list[str] | None, no_plugin: list[str] | None, wanted: range, *, dropped: bool = False
) -> Shown:
    """Return the wanted training rows of a recipe, and what is known of all its rows."""
    from sftplug.data.ledger import Ledger
    from sftplug.data.prepare import prepare
    from sftplug.models import end_tokens, load_tokenizer
    from sftplug.preview import Collector

    loaded = open_recipe(recipe, overrides, no_plugin)
    order = _order(loaded, wanted)
    rows = wanted if order is None else {number for index in wanted if index < len(order) for number in order[index]}
    tokenizer, ledger = load_tokenizer(loaded.recipe), Ledger()
    collector = Collector(tokenizer, rows, len(wanted), loaded.recipe.data.max_length)
    refusal: SftplugError | None = None
    try:
        prepare(
            loaded.recipe, tokenizer, end_tokens=end_tokens(loaded.recipe, tokenizer), watch=collector, ledger=ledger
        )
    except (MaskError, DataError) as error:
        refusal = error
    packed = loaded.recipe.data.packing == "rows"
    shown = collector.rows if order is None else collector.arranged(order, wanted, packed=packed)
    return Shown(collector.dropped if dropped else shown, facts(ledger), refusal)


def _order(loaded: LoadedRecipe, wanted: range) -> Sequence[Sequence[int]] | None:
    """Return which prepared rows are in each row that is trained, where rows are mixed or packed."""
    data = loaded.recipe.data
    plain = all(source.share is None and source.epochs == 1 for source in data.train)
    if data.packing != "rows" and plain:
        return None
    try:
        return prepare_rows(loaded, quiet=True).order
    except (MaskError, DataError):
        return None  # refused: the good rows are shown as they are


def facts(ledger: Ledger) -> list[tuple[str, str]]:
    """Return what there is to know about all rows: how many, how much of them is trained, the stops, the notes."""
    accounts = [account for split, account in ledger.accounts() if split == "train"]
    tokens, trained = sum(item.tokens for item in accounts), sum(item.trained for item in accounts)
    noted = [f"{rows:,} {kind}" for account in accounts for kind, rows in account.noted.items()]
    dropped = [f"{rows:,} {stage}" for account in accounts for stage, rows in account.dropped.items()]
    return [
        ("rows", f"{sum(item.kept for item in accounts):,} (+{sum(item.added for item in accounts):,} added)"),
        ("tokens", f"{tokens:,}"),
        ("trained", f"{trained:,.0f} ({trained / tokens:.1%})" if tokens else "0"),
        ("stops learned", ", ".join(f"{stop} x {turns:,}" for stop, turns in ledger.stops.items()) or "none"),
        ("noted", ", ".join(noted) or "nothing"),
        ("dropped", ", ".join(dropped) or "nothing"),
    ]
