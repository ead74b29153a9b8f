"""Rows in the terminal: trained tokens green, weighted ones yellow, the rest dim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.text import Text

from sftplug.previewing.collect import PreviewRow, PreviewToken
from sftplug.util.text import visible

_PARTS = {"reasoning": " italic", "tool_call": " underline", "end_of_turn": " reverse"}


def style_of(weight: float, part: str) -> str:
    """Return the colour of a loss weight, and how a part is set: reasoning italic, calls underlined, ends reversed."""
    if weight == 0:
        return "dim"
    return ("bold green" if weight == 1 else "bold yellow") + _PARTS.get(part, "")


def draw_row(row: PreviewRow, *, ids: bool = False, marks: bool = False) -> Text:
    """Return a row with its tokens coloured by weight; each turn begins with its role, `ids` adds token ids.

    `marks` puts what is trained in ``⟦…⟧`` (``⟦0.5:…⟧`` for other weights than 1), for where there is no colour.
    """
    text = Text().append(f"{heading(row)}\n", style="bold")
    message, before = None, 0.0
    for index, token in enumerate(row.tokens):
        weight = token.weight if marks else 0.0
        if weight != before:
            text.append(_bracket(before, weight))
        before = weight
        _append_borders(text, row, index)
        if token.message != message and token.message >= 0:
            text.append(f"[{token.message} {token.role}]", style="bold cyan")
        message = token.message
        text.append(marked(token.text), style=style_of(token.weight, token.part))
        if ids:
            text.append(f"⟨{token.id}⟩", style="magenta")
    text.append(_bracket(before, 0.0))
    if row.cut:
        text.append(f"┃ cut: {row.cut:,} more characters ┃", style="bold red")
    for note in row.notes:
        text.append(f"\nnote: {note}", style="yellow")
    return text


def _append_borders(text: Text, row: PreviewRow, index: int) -> None:
    if index == row.limit:
        text.append(f"┃ max_length {row.limit} ┃", style="bold red")
    if index in row.borders:
        text.append("┃ next document ┃\n", style="bold blue")


def heading(row: PreviewRow) -> str:
    """Return which row it is, how long, and how much of it is trained."""
    what = f"row {row.index}" if row.limit is None else "dropped"
    return f"{what}  {row.origin}  {len(row.tokens):,} tokens, {row.trained:,} trained"


def _bracket(before: float, after: float) -> str:
    opened = "" if after == 0 else "⟦" if after == 1 else f"⟦{after:g}:"
    return ("⟧" if before else "") + opened


def marked(text: str) -> str:
    """Return `text` with its line ends marked, and with control characters shown."""
    return visible(text.replace("\t", "\\x09")).replace("\n", "⏎\n")


def differences(first: Sequence[PreviewRow], second: Sequence[PreviewRow], *, marks: bool = False) -> Iterator[Text]:
    """Yield a text for each row that two recipes train differently.

    `marks` puts what has more weight in the first in ``[-…-]``, in the second in ``{+…+}``, for where there is no
    colour.
    """
    for one, other in zip(first, second, strict=False):
        mine, theirs = _weights(one.tokens), _weights(other.tokens)
        if mine == theirs:
            continue
        text = Text().append(f"row {one.index}  {one.origin}\n", style="bold")
        if [part[0] for part in mine] != [part[0] for part in theirs]:
            yield text.append("the rows hold other tokens", style="yellow")
            continue
        pairs = zip(one.tokens, theirs, strict=True)
        for sign, run in groupby(pairs, key=lambda pair: _sign(pair[0].weight, pair[1][1])):
            style, begin, end = _SIGNS[sign]
            inside = "".join(marked(token.text) for token, _ in run)
            text.append(f"{begin}{inside}{end}" if marks else inside, style=style)
        yield text
    if len(first) != len(second):
        yield Text(f"the recipes keep {len(first)} and {len(second)} of these rows", style="yellow")


_SIGNS = {0: ("dim", "", ""), 1: ("bold red", "[-", "-]"), -1: ("bold green", "{+", "+}")}
"""Where the weight is larger -> colour, and what stands around it where there is no colour."""


def _sign(mine: float, theirs: float) -> int:
    return (mine > theirs) - (mine < theirs)


def _weights(tokens: Iterable[PreviewToken]) -> list[tuple[int, float]]:
    return [(token.id, token.weight) for token in tokens]
