"""Rows in the terminal: trained tokens green, weighted ones yellow, the rest dim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from sftplug.preview.collect import PreviewRow, PreviewToken

_PARTS = {"reasoning": " italic", "tool_call": " underline", "end_of_turn": " reverse"}


def style_of(weight: float, part: str) -> str:
    """Return the colour of a loss weight, and how a part is set: reasoning italic, calls underlined, ends reversed."""
    if weight == 0:
        return "dim"
    return ("bold green" if weight == 1 else "bold yellow") + _PARTS.get(part, "")


def draw_row(row: PreviewRow, *, ids: bool = False) -> Text:
    """Return a row with its tokens coloured by weight; each turn begins with its role, `ids` adds token ids."""
    head = f"row {row.index}" if row.limit is None else f"dropped: {len(row.tokens)} tokens"
    text = Text(f"{head}  {row.origin}\n", style="bold")
    message = None
    for index, token in enumerate(row.tokens):
        if index == row.limit:
            text.append(f"┃ max_length {row.limit} ┃", style="bold red")
        if index in row.borders:
            text.append("┃ next document ┃\n", style="bold blue")
        if token.message != message and token.message >= 0:
            text.append(f"[{token.message} {token.role}]", style="bold cyan")
        message = token.message
        text.append(visible(token.text), style=style_of(token.weight, token.part))
        if ids:
            text.append(f"⟨{token.id}⟩", style="magenta")
    for note in row.notes:
        text.append(f"\nnote: {note}", style="yellow")
    return text


def visible(text: str) -> str:
    """Return `text` with control characters shown: a hostile row must not drive the terminal."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character == "\n":
        return "⏎\n"
    return character if character.isprintable() else f"\\x{ord(character):02x}"


def differences(first: Sequence[PreviewRow], second: Sequence[PreviewRow]) -> Iterator[Text]:
    """Yield a text for each row that two recipes train differently."""
    for one, other in zip(first, second, strict=False):
        mine, theirs = _weights(one.tokens), _weights(other.tokens)
        if mine == theirs:
            continue
        text = Text(f"row {one.index}  {one.origin}\n", style="bold")
        if [part[0] for part in mine] != [part[0] for part in theirs]:
            yield text.append("the rows hold other tokens", style="yellow")
            continue
        for token, weight in zip(one.tokens, theirs, strict=True):
            text.append(visible(token.text), style=_difference_style(token.weight, weight[1]))
        yield text
    if len(first) != len(second):
        yield Text(f"the recipes keep {len(first)} and {len(second)} of these rows", style="yellow")


def _weights(tokens: Iterable[PreviewToken]) -> list[tuple[int, float]]:
    return [(token.id, token.weight) for token in tokens]


def _difference_style(mine: float, theirs: float) -> str:
    if mine == theirs:
        return "dim"
    return "bold red" if mine > theirs else "bold green"
