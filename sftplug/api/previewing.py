"""Show which tokens are trained, exactly as the trainer gets them; loads no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from sftplug.api.recipes import Given, loaded
from sftplug.api.rows import prepare
from sftplug.errors import DataError, MaskError, SftplugError
from sftplug.plugin.components import ChatTemplate
from sftplug.util.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from sftplug.previewing import PreviewRow
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.types.ledger import Ledger


@dataclass(frozen=True, slots=True, repr=False)
class Preview:
    """What there is to see of a recipe's rows; it shows itself in a notebook, and printed, in a terminal."""

    name: str
    """The recipe's name."""
    rows: Sequence[PreviewRow]
    """The rows, each with its tokens: id, text, weight, role, part."""
    facts: Mapping[str, Any]
    """What is known of all rows: how many, how much of them is trained, the stops that are learned …"""
    refusal: SftplugError | None = None
    """Why the rows would not be trained; the good ones are shown all the same."""

    def to_html(self) -> str:
        """Return a page of HTML that needs neither network nor scripts."""
        from sftplug.previewing import to_html

        return to_html(f"sftplug preview {self.name}", self.rows, lines(self.facts))

    def show(self, console: Console, *, ids: bool = False) -> None:
        """Print the rows to a rich console, trained tokens green; `ids` adds token ids."""
        from sftplug.previewing.terminal import draw_row

        marks = console.no_color or not console.is_terminal
        for row in self.rows:
            console.print(draw_row(row, ids=ids, marks=marks), "")
        for name, value in lines(self.facts):
            console.print(visible(f"{name}: {value}"), markup=False, highlight=False, soft_wrap=True)

    def __str__(self) -> str:
        """Return what `show` prints, with what is trained in brackets where there is no colour."""
        from rich import get_console
        from rich.console import Console

        here, text = get_console(), StringIO()
        # In a notebook a console shows what it prints, whatever file it is given, unless it is told not to.
        marks, colourless = here.is_terminal, here.no_color
        self.show(Console(file=text, width=here.width, force_terminal=marks, force_jupyter=False, no_color=colourless))
        refused = f"refused: {self.refusal}\n" if self.refusal is not None else ""
        return f"{text.getvalue()}{refused}".rstrip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from sftplug.previewing import to_fragment

        return to_fragment(self.rows, [*lines(self.facts), *([("refused", str(self.refusal))] if self.refusal else [])])


def preview(recipe: Given, rows: int | range = 5, *, dropped: bool = False) -> Preview:
    """Return the first `rows` training rows, or those of a range, as the trainer gets them.

    With `dropped`, rows that are too long, and where they would end. Where the rows are refused, the good ones are
    there all the same, and ``.refusal`` is the error.
    """
    from sftplug.data.prepare import prepare as prepare_rows
    from sftplug.model.loading import end_tokens, load_tokenizer
    from sftplug.previewing import Collector
    from sftplug.types.ledger import Ledger

    found, wanted = loaded(recipe, "preview"), rows if isinstance(rows, range) else range(rows)
    order = _order(found)
    kept = wanted if order is None else {number for index in wanted if index < len(order) for number in order[index]}
    tokenizer, ledger = load_tokenizer(found.recipe), Ledger()
    collector = Collector(kept, len(wanted), found.recipe.data.max_length)
    refusal: SftplugError | None = None
    try:
        prepare_rows(
            found.recipe,
            tokenizer,
            end_tokens=end_tokens(found.recipe, tokenizer),
            watch=collector,
            ledger=ledger,
            templates=found.registry.without_options(ChatTemplate, found.active),
        )
    except (MaskError, DataError) as error:
        refusal = error
    packed = found.recipe.data.packing == "rows"
    shown = collector.rows if order is None else collector.arranged(order, wanted, packed=packed)
    return Preview(found.name, collector.dropped if dropped else shown, facts(ledger), refusal)


def _order(recipe: LoadedRecipe) -> Sequence[Sequence[int]] | None:
    """Return which prepared rows are in each row that is trained, where rows are mixed or packed."""
    data = recipe.recipe.data
    plain = all(source.share is None and source.epochs == 1 for source in data.train)
    if data.packing != "rows" and plain:
        return None
    try:
        return prepare(recipe, quiet=True).order
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
        "processed": [
            {"source": account.source, **step.to_dict(), "said": step.in_words()}
            for account in accounts
            for step in account.processed
        ],
        "replaced": dict(sum((account.filled for account in accounts), Counter())),
        "system_given": sum(account.led for account in accounts),
    }


def lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return `facts` in words, a name and a text each."""
    tokens, trained, filled, led = facts["tokens"], facts["trained"], facts["replaced"], facts["system_given"]
    given = [("replaced", ", ".join(f"{text} x {count:,}" for text, count in filled.items()))] * bool(filled)
    given += [("system", f"the recipe's, in {led:,} rows that have none")] * bool(led)
    given += [("processed", f"{step['processor']}: {step['said']}") for step in facts["processed"]]
    return [
        ("rows", f"{facts['rows']:,}" + (f", of them {facts['added']:,} added" if facts["added"] else "")),
        ("tokens", f"{tokens:,}"),
        ("trained", f"{trained:,.0f} ({trained / tokens:.1%})" if tokens else "0"),
        *given,
        ("stops learned", ", ".join(f"{stop} x {turns:,}" for stop, turns in facts["stops"].items()) or "none"),
        ("noted", ", ".join(f"{rows:,} {kind}" for kind, rows in facts["noted"].items()) or "nothing"),
        ("dropped", ", ".join(f"{rows:,} {stage}" for stage, rows in facts["dropped"].items()) or "nothing"),
    ]
