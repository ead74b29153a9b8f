"""``sftplug preview``"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import rich
import typer

from sftplug.cli.options import (
    NoPlugin,
    Overrides,
    RecipeName,
    Verbose,
    be_verbose,
    open_recipe,
    prepare_rows,
    write_file,
)
from sftplug.components import ChatTemplate
from sftplug.errors import DataError, MaskError, SftplugError
from sftplug.text import visible

if TYPE_CHECKING:
    from sftplug.preview import PreviewRow
    from sftplug.recipe import LoadedRecipe
    from sftplug.types.ledger import Ledger


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
    shown = collect(recipe, overrides, no_plugin, wanted, dropped=dropped)
    if row is not None and not dropped:
        _refuse_missing(row, shown)
    if diff is not None:
        _show_differences(shown.rows, collect(diff, overrides, no_plugin, wanted).rows)
    if html is not None:
        _write_page(html, f"sftplug preview {recipe}", shown)
        typer.echo(f"wrote {html}", err=as_json)
    if as_json:
        typer.echo(json.dumps({"rows": [item.to_dict() for item in shown.rows], "facts": shown.facts}))
    elif html is None and diff is None:
        _show(shown, ids=ids)
    if shown.refusal is not None:
        raise shown.refusal


def _refuse_clashes(diff: str | None, html: Path | None, *, in_terminal: bool) -> None:
    if diff is not None and not in_terminal:
        raise typer.BadParameter("--diff is shown in the terminal: leave out --html, --json and --dropped.")
    if html is not None and not html.absolute().parent.is_dir():
        raise typer.BadParameter(f"--html: there is no folder {html.absolute().parent}.")


def _refuse_missing(row: int, shown: Shown) -> None:
    if not shown.rows and shown.refusal is None:
        raise DataError(f"there is no row {row}: {shown.facts['rows']:,} rows reach the trainer, counted from 0.")


def _write_page(file: Path, title: str, shown: Shown) -> None:
    from sftplug.preview import to_html

    write_file(file, to_html(title, shown.rows, lines(shown.facts)))


def _show(shown: Shown, *, ids: bool) -> None:
    from sftplug.preview.terminal import draw_row

    console = rich.get_console()
    for item in shown.rows:
        console.print(draw_row(item, ids=ids, marks=console.no_color or not console.is_terminal), "")
    for name, value in lines(shown.facts):
        typer.echo(visible(f"{name}: {value}"))


def _show_differences(first: Sequence[PreviewRow], second: Sequence[PreviewRow]) -> None:
    from sftplug.preview.terminal import differences

    console = rich.get_console()
    texts = list(differences(first, second, marks=console.no_color or not console.is_terminal))
    for text in texts:
        console.print(text, "")
    if texts:
        typer.echo("red, [-…-]: more weight in the first recipe; green, {+…+}: more weight in the second")
    typer.echo(f"{len(texts)} of {len(first)} rows are trained differently")


@dataclass(frozen=True, slots=True)
class Shown:
    """What there is to see of a recipe's rows."""

    rows: list[PreviewRow]
    facts: dict[str, Any]
    refusal: SftplugError | None
    """Why the rows would not be trained; the good ones are shown all the same."""


def collect(
    recipe: str, overrides: list[str] | None, no_plugin: list[str] | None, wanted: range, *, dropped: bool = False
) -> Shown:
    """Return the wanted training rows of a recipe, and what is known of all its rows."""
    from sftplug.data.prepare import prepare
    from sftplug.models import end_tokens, load_tokenizer
    from sftplug.preview import Collector
    from sftplug.types.ledger import Ledger

    loaded = open_recipe(recipe, overrides, no_plugin)
    order = _order(loaded, wanted)
    rows = wanted if order is None else {number for index in wanted if index < len(order) for number in order[index]}
    tokenizer, ledger = load_tokenizer(loaded.recipe), Ledger()
    collector = Collector(rows, len(wanted), loaded.recipe.data.max_length)
    refusal: SftplugError | None = None
    try:
        prepare(
            loaded.recipe,
            tokenizer,
            end_tokens=end_tokens(loaded.recipe, tokenizer),
            watch=collector,
            ledger=ledger,
            templates=loaded.registry.without_options(ChatTemplate, loaded.active),
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


def facts(ledger: Ledger) -> dict[str, Any]:
    """Return what there is to know about all rows: how many, how much of them is trained, the stops, the notes."""
    accounts = [account for split, account in ledger.accounts() if split == "train"]
    noted, dropped = Counter[str](), Counter[str]()
    for account in accounts:
        noted.update(account.noted)
        dropped.update(account.dropped)
    return {
        "rows": sum(account.kept + account.added for account in accounts),
        "added": sum(account.added for account in accounts),
        "tokens": sum(account.tokens for account in accounts),
        "trained": sum(account.trained_tokens for account in accounts),
        "stops": dict(ledger.stops),
        "noted": dict(noted),
        "dropped": dict(dropped),
        "replaced": dict(sum((account.filled for account in accounts), Counter())),
        "system_given": sum(account.led for account in accounts),
    }


def lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return `facts` in words, a name and a text each."""
    tokens, trained, filled, led = facts["tokens"], facts["trained"], facts["replaced"], facts["system_given"]
    given = [("replaced", ", ".join(f"{text} x {count:,}" for text, count in filled.items()))] * bool(filled)
    given += [("system", f"the recipe's, in {led:,} rows that have none")] * bool(led)
    return [
        ("rows", f"{facts['rows']:,}" + (f", of them {facts['added']:,} added" if facts["added"] else "")),
        ("tokens", f"{tokens:,}"),
        ("trained", f"{trained:,.0f} ({trained / tokens:.1%})" if tokens else "0"),
        *given,
        ("stops learned", ", ".join(f"{stop} x {turns:,}" for stop, turns in facts["stops"].items()) or "none"),
        ("noted", ", ".join(f"{rows:,} {kind}" for kind, rows in facts["noted"].items()) or "nothing"),
        ("dropped", ", ".join(f"{rows:,} {stage}" for stage, rows in facts["dropped"].items()) or "nothing"),
    ]
