"""Where a turn's trained span starts and ends.

A trained span is what the model itself must produce at inference: from the end of the generation prompt through the
stop token, never the white space after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple

from sftplug.data.render.output import agreement
from sftplug.data.render.pieces import Layout, Piece

SPECIAL = re.compile(
    r"<[^\s<>]{1,60}>|\[/?[A-Z_]{2,40}\]|\[\|[^|\[\]]{1,60}\|\]|<\|[^|<>]{1,60}\|>|<｜[^｜<>]{1,60}｜>"
)
"""What looks like a special token when nobody says which tokens are."""
LONGEST_TOKEN = 64
"""So many characters it has at most."""
_SHOWN = re.compile(r"\S")
WORDS = re.compile(rf"{SPECIAL.pattern}|\w+")


class Start(NamedTuple):
    """Where a span starts, and what differs from inference there."""

    at: int
    diverges: Literal["", "header", "context"]
    header: str
    """The text between the previous message's content and the span, as rendered."""
    prompt: str
    """The same text as inference renders it."""


class Stop(NamedTuple):
    """Where a span ends, and who printed the stop."""

    at: int
    by: Literal["own", "next", "none"]


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a template ends an assistant's turn, learned from a probe."""

    by: Literal["own", "next", "none"]
    tail: str
    """What stands between the content and the end of the turn, white space after it stripped."""

    @property
    def stop(self) -> str:
        """The stop itself, without white space before it."""
        return self.tail.strip()


@dataclass(frozen=True, slots=True)
class TurnLocation:
    """Where one stretch of an assistant's turn stands in the text."""

    message: int
    begin: int
    """Start of what the template wrote for it before that, or of its first own character."""
    first: int
    """Start of its first own character (or of an empty content)."""
    last: int
    """End of its last own character."""
    end: int
    """End of what the template wrote for it after that."""


def turn_locations(layout: Layout, message: int) -> list[TurnLocation]:
    """Return where `message` stands: one stretch, or more where text of the environment stands between.

    An empty list when nothing in the text belongs to it.
    """
    groups = _groups(layout, message)
    spoken = [group for group in groups if any(piece.field for piece in group)]
    if spoken:
        return [_location(message, group) for group in spoken]
    # An empty reply that the template does not print: only its header and stop are there.
    return [
        TurnLocation(message, group[0].start, group[0].start, group[0].start, group[-1].end) for group in groups[:1]
    ]


def _groups(layout: Layout, message: int) -> list[list[Piece]]:
    """Return the pieces of `message` in stretches that no other message's text interrupts."""
    groups: list[list[Piece]] = []
    for piece in layout.of(message):
        if groups and groups[-1][-1].end == piece.start:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _location(message: int, group: list[Piece]) -> TurnLocation:
    content = [piece for piece in group if piece.field]
    return TurnLocation(message, group[0].start, content[0].start, content[-1].end, group[-1].end)


def content_before(layout: Layout, position: int, message: int) -> int:
    """Return the end of the last piece of another message's own text than `message`'s that ends by `position`."""
    return next((piece.end for piece in layout.until(position) if _says(piece, message)), 0)


def _says(piece: Piece, message: int) -> bool:
    return bool(piece.field) and piece.message != message


def find_start(layout: Layout, where: TurnLocation, wanted: str, own_prompt: str, goes_on: bool) -> Start | None:
    """Return the start of the span of the turn at `where` when its text is not what inference shows before it.

    `wanted` is what inference shows after the last text of a message, and `own_prompt` what the template adds to ask
    for a reply; `goes_on` says that here it adds something else, because the turn goes on after a tool's answer. None
    when there is no such text by which the start could be told.
    """
    mine = content_before(layout, where.first, where.message)
    header = layout.text[mine : where.first + len(wanted) + len(own_prompt) + LONGEST_TOKEN]
    # What inference shows stands here as well; only something before it differs.
    for known in (wanted, own_prompt.lstrip()):
        matched = _find_header(header, known, where.first - mine)
        if matched is not None:
            return Start(mine + matched, "context", "", "")
    # The same but for white space: "<|end|>\n<|assistant|> " here, and "<|end|>\n<|assistant|>\n" at inference.
    matched = _find_spaced(header[: where.first - mine], wanted)
    if matched is not None:
        return Start(mine + matched, "header", header[: where.first - mine], wanted)
    # Both begin alike: "<|im_start|>assistant\n" here, with "<think>\n" after it at inference. The span starts there.
    common = common_start(header, wanted)
    if not own_prompt.strip() and mine + common < where.begin:
        return _start_of_own(layout, where, mine)
    words = own_prompt.strip()
    matched = _find_header(header, words, where.first - mine)
    if matched is not None:
        # The same words with other white space after them: what both have of it is the prompt's.
        space = agreement(header[matched : where.first - mine], own_prompt[own_prompt.index(words) + len(words) :])
        return Start(mine + matched + space, "header", header[: where.first - mine], wanted)
    first, agreed = WORDS.search(own_prompt), header[: min(common, _first_said(layout, where) - mine)]
    if first is not None and not goes_on and header.rfind(first.group(), 0, where.first - mine) >= common:
        return None  # the texts part before the turn's own header does
    # Where all that stands before the turn is in the prompt too, it needs no header to be told from what is before it.
    told = goes_on or (mine + common >= where.first and not _writes(layout, where, first))
    if not (agreed.strip() if told else _says_header(agreed, own_prompt)):
        return None
    return Start(mine + common, "header", header[: max(where.first - mine, common)], wanted)


def _first_said(layout: Layout, where: TurnLocation) -> int:
    """Return where the turn's first own character stands; the end of the text for a turn that has none."""
    said = (piece.start for piece in layout.content(where.message) if piece.end > piece.start >= where.first)
    return next(said, len(layout.text))


def _writes(layout: Layout, where: TurnLocation, word: re.Match[str] | None) -> bool:
    """Whether the template itself writes `word` after the turn's first own character."""
    later = [piece for piece in layout.of(where.message) if piece.start >= where.first]
    written = "".join("\0" if piece.field else layout.text[piece.start : piece.end] for piece in later)
    return word is not None and word.group() in written


def _start_of_own(layout: Layout, where: TurnLocation, mine: int) -> Start | None:
    """Return the start of a turn that the template never asks for: all that it prints for it is the model's to write.

    None when nothing tells it from the turn before.
    """
    if where.begin <= mine or WORDS.search(layout.text, mine, where.begin) is None:
        return None
    return Start(where.begin, "context", "", "")


def _says_header(shared: str, own_prompt: str) -> bool:
    """Whether what header and prompt share holds the beginning of what asks for a reply."""
    first = WORDS.search(own_prompt)
    return first.group() in shared if first is not None else bool(shared.strip())


def find_opening(layout: Layout, where: TurnLocation, own_prompt: str) -> Start | None:
    """Return the start of a turn that no prompt can be rendered for, by what the template adds to ask for a reply.

    Where its header ends in all of `own_prompt`, the span starts there; where it has only its beginning (a prefilled
    thought is lacking), or other white space, the span starts where both still agree. If the template never asks for
    a reply, and writes nothing but white space before one that opens the conversation, all of that is the model's.
    """
    mine = content_before(layout, where.first, where.message)
    before, opening, words = layout.text[mine : where.first], own_prompt.lstrip(), own_prompt.strip()
    if not words:
        own = layout.text[where.begin : where.first]
        return None if own.strip() or mine else Start(where.begin, "", "", "")
    # All that asks for a reply, or else its first word: "<|assistant|>" of "<|assistant|><think>", which a turn without
    # a thought lacks.
    at, first = before.rfind(words), WORDS.search(opening)
    if at < 0 and first is not None:
        at = before.rfind(opening[: first.end()])
    if at < 0:
        return None
    common = common_start(before[at:], opening)
    if common == len(opening):
        return Start(mine + at + common, "", "", "")
    return Start(mine + at + common, "header", before[at:], opening) if common else None


def _find_spaced(header: str, wanted: str) -> int | None:
    """Return where `wanted` ends at the start of `header`, with other white space in it: what both have is its end."""
    position = 0
    for char in wanted:
        if not char.isspace():
            position = len(header) - len(header[position:].lstrip())
            if header[position : position + 1] != char:
                return None
            position += 1
    return position + agreement(header[position:], wanted[len(wanted.rstrip()) :]) if position else None


def _find_header(header: str, known: str, length: int) -> int | None:
    """Return where `known` ends for the last time within the first `length` characters of `header`."""
    at = header.rfind(known, 0, max(length, len(known))) if known.strip() else -1
    return at + len(known) if at >= 0 else None


def common_start(first: str, second: str) -> int:
    """Return how many characters two texts share at their start, without splitting a word or special token."""
    # "<|user|>" and "<|system|>" share two characters, which are no token of either: they share nothing.
    common = agreement(first, second)
    return min(whole_before(first, common), whole_before(second, common))


def whole_before(text: str, at: int) -> int:
    """Return `at`, or the start of the special token or word that it would split."""
    before = takewhile(lambda match: match.start() < at, WORDS.finditer(text))
    return next((match.start() for match in before if at < match.end()), at)


def find_stop(layout: Layout, where: TurnLocation, start: int, turn_end: TurnEnd | None, ends: frozenset[str]) -> Stop:
    """Return the end of the span that begins at `start`; `ends` are the model's end tokens when they are known."""
    # All own text may stand in the prompt (a prefilled "<think>"): the span ends no earlier than it begins.
    last = max(where.last, start)
    tail = layout.text[last : where.end].rstrip()
    last += len(_without_document_end(tail, turn_end))
    # What the template writes for the turn after its words is its stop, unless it is known to leave that to the next
    # turn.
    if tail and (turn_end is None or turn_end.by != "next"):
        return Stop(last, "own")
    stop = _printed_next(layout, last, turn_end)
    if stop is not None and (not ends or stop.group() in ends):
        return Stop(stop.end(), "next")
    return Stop(last, "none")


def _without_document_end(tail: str, turn_end: TurnEnd | None) -> str:
    """Cut what only the last turn has after its stop: the end of the document is not the end of a turn."""
    if turn_end is None or turn_end.by != "own" or not tail.startswith(turn_end.tail):
        return tail
    # Of "<|im_end|>\n<|endoftext|>", where every other turn ends in "<|im_end|>", the last is the document's end.
    rest = tail[len(turn_end.tail) :]
    return turn_end.tail if rest[:1].isspace() or SPECIAL.match(rest) else tail


def _printed_next(layout: Layout, position: int, turn_end: TurnEnd | None) -> re.Match[str] | None:
    """Return the special token after `position` if it ends the turn before it and something else prints it."""
    # "Yes</s>[INST]Why": where "</s>" is written ahead of a question, it is the question's turn that prints it.
    shown = _SHOWN.search(layout.text, position)
    start = len(layout.text) if shown is None else shown.start()
    stop, owner = SPECIAL.match(layout.text, start), layout.at(start)
    if stop is None or owner is None or owner.field:
        return None
    if owner.message is not None:
        return stop if turn_end is None or turn_end.by == "next" else None
    # Printed once, after the last turn: "[INST]Hi[/INST]Yes" and then "</s>". It stops the turn if other turns end in
    # the same, or in nothing; where they end in "<|end|>", "<|endoftext|>" is the end of the document.
    return stop if turn_end is not None and turn_end.stop in ("", stop.group()) else None


def uncovered(pieces: Sequence[Piece], spans: Sequence[tuple[int, int]]) -> list[Piece]:
    """Return the parts of `pieces` outside of all `spans`."""
    outside = []
    for piece in pieces:
        position = piece.start
        # A piece from 0 to 10 with spans 2-4 and 6-8 leaves 0-2, 4-6 and, by the empty span at its end, 8-10.
        for start, end in [*spans, (piece.end, piece.end)]:
            if position < min(start, piece.end):
                outside.append(piece._replace(start=position, end=min(start, piece.end)))
            position = max(position, min(end, piece.end))
    return outside
