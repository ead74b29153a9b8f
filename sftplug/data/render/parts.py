"""Name the part that each piece of the text plays in its turn."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftplug.data.render.pieces import REASONING, Layout, Piece
from sftplug.types.tokens import PARTS

_CODE = {name: index for index, name in enumerate(PARTS)}
_THOUGHT = re.compile(r"(<think>.*?(?:</think>|\Z))(\s*)", re.DOTALL)
_OPENED = re.compile(r"<think>\s*\Z")
_CONTENT_PART = re.compile(r"content\[(\d+)\]")
_STOP = re.compile(r"(?:<[^\s<>]+>|\S+)\s*\Z")

Labelled = tuple[int, int, str]
"""Start, message, part."""
Edges = tuple[int, int]
Finder = Callable[[Piece], Edges | None]


class Runs(NamedTuple):
    """What is known of the R runs that tile a text: arrays of equal length."""

    starts: NDArray[np.int32]
    """(R,) where each run starts."""
    message: NDArray[np.int32]
    """(R,) index of the message a run belongs to; -1 for the template's own text."""
    part: NDArray[np.int8]
    """(R,) index into `sftplug.PARTS`."""
    own: NDArray[np.bool_]
    """(R,) whether the message wrote the run itself, rather than the template for it."""
    content_part: NDArray[np.int16]
    """(R,) index of the content part a run is of, where the content is a list of parts; -1 elsewhere."""
    given: NDArray[np.bool_]
    """(R,) whether the row wrote the run at all: a message, or a tool, an argument's name, an id."""

    def cut(self, start: int, end: int) -> Runs:
        """Return the runs of the characters from `start` to `end`, their starts counted from `start`."""
        # Of runs at 0, 10 and 25, those from 12 to 30 are the second and third, which then start at 0 and 13.
        first = max(int(np.searchsorted(self.starts, start, side="right")) - 1, 0)
        last = int(np.searchsorted(self.starts, end, side="left"))
        starts = np.maximum(self.starts[first:last] - start, 0).astype(np.int32)
        return Runs._make(array[first:last] for array in self)._replace(starts=starts)

    def followed_by(self, length: int, other: Runs) -> Runs:
        """Return these runs, which cover `length` characters, and `other` after them."""
        moved = other._replace(starts=(other.starts + length).astype(np.int32))
        return Runs._make(np.concatenate([mine, theirs]) for mine, theirs in zip(self, moved, strict=True))


def label_parts(layout: Layout, spans: Sequence[tuple[int, int, int]]) -> Runs:
    """Return the runs of the text; `spans` are (start, end, message)."""
    bounds = [(start, end) for start, end, _ in spans]
    find = _finder(bounds)
    last = {piece.message: piece.end for piece in layout.pieces if piece.field}
    runs = [
        (run, piece)
        for piece, in_call in zip(layout.pieces, _in_calls(layout.pieces), strict=True)
        if piece.end > piece.start
        for run in _label(layout.text, piece, last.get(piece.message), find, in_call=in_call)
    ]
    starts = np.array([start for (start, _, _), _ in runs], dtype=np.int32)
    message = np.array([owner for (_, owner, _), _ in runs], dtype=np.int32)
    part = np.array([_CODE[name] for (_, _, name), _ in runs], dtype=np.int8)
    own = np.array([bool(piece.field) for _, piece in runs], dtype=bool)
    content_part = np.array([_content_part_of(piece.field) for _, piece in runs], dtype=np.int16)
    given = np.array([piece.given for _, piece in runs], dtype=bool)
    thoughts = [found for span in bounds for found in _thoughts_in(layout.text, *span)]
    return _mark(thoughts, _split(thoughts, Runs(starts, message, part, own, content_part, given), len(layout.text)))


def _finder(spans: Sequence[Edges]) -> Finder:
    """Return what finds the first of `spans` that has something of a piece of the text."""
    edges = [edge for span in spans for edge in span]
    # Nearly always spans follow one another, and can be searched by halves; only where some overlap all are looked at.
    if any(before > after for before, after in itertools.pairwise(edges)):
        return lambda piece: next(((low, high) for low, high in spans if low < piece.end and high > piece.start), None)
    ends = edges[1::2]

    def find(piece: Piece) -> Edges | None:
        index = bisect_right(ends, piece.start)
        return spans[index] if index < len(spans) and spans[index][0] < piece.end else None

    return find


def _content_part_of(field: str) -> int:
    """Return 2 for ``content[2].text``, -1 for what is of no content part."""
    found = _CONTENT_PART.match(field)
    return int(found.group(1)) if found else -1


def _in_calls(pieces: Sequence[Piece]) -> list[bool]:
    """Return for each piece whether something of a tool call stands right before or after it in its message.

    What a template writes there belongs to the call, whatever it looks like: ``, "arguments": `` or ``</arg_key>``.
    """
    found = [False] * len(pieces)
    # Forwards each piece learns what its message said last before it; backwards, what it says next.
    for step in (1, -1):
        near: dict[int | None, bool] = {}
        for index in range(len(pieces))[::step]:
            piece = pieces[index]
            if piece.field:
                near[piece.message] = _is_of_call(piece.field)
            found[index] |= near.get(piece.message, False)
    return found


def _is_of_call(field: str) -> bool:
    return field.startswith("tool_calls")


def _label(text: str, piece: Piece, last: int | None, find: Finder, *, in_call: bool) -> Iterator[Labelled]:
    if piece.message is None:
        yield piece.start, -1, "scaffold"
    elif piece.field:
        yield piece.start, piece.message, _part_of(piece.field)
    else:
        inner = "tool_call" if in_call else "header"
        yield from _label_literal(text, piece, last, find, inner)


def _part_of(field: str) -> str:
    if field == REASONING:
        return "reasoning"
    return "tool_call" if _is_of_call(field) else "content"


def _label_literal(text: str, piece: Piece, last: int | None, find: Finder, inner: str) -> Iterator[Labelled]:
    """Split what the template wrote for a message at the edges of its span, and at the stop; `inner` is between."""
    owner = -1 if piece.message is None else piece.message
    span = find(piece)
    if span is None:
        # Outside of all spans, what stands behind the last word of its message ends the turn, and all else is a header.
        yield piece.start, owner, "header" if last is None or piece.end <= last else "end_of_turn"
        return
    # "<|im_start|>assistant\n" ahead of the span is a header. Of "<|im_end|>\n" behind a content the span holds
    # "<|im_end|>", the stop; the line break after it is scaffold.
    start, end = max(span[0], piece.start), min(span[1], piece.end)
    if piece.start < start:
        yield piece.start, owner, "header"
    stop = _stop_start(text, start, end) if end == span[1] else end
    if start < stop:
        yield start, owner, inner
    if stop < end:
        yield stop, owner, "end_of_turn"
    if end < piece.end:
        yield end, owner, "scaffold"


def _stop_start(text: str, start: int, end: int) -> int:
    """Return where the stop begins that ends at `end`: the last token-like word of the literal."""
    found = _STOP.search(text, start, end)
    return found.start() if found else start


def _thoughts_in(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """Yield the thoughts of a span, of which the prompt may have written the first tag."""
    # A prompt that ends in "<think>\n" wrote the first tag; "…</think>" in the span is a thought all the same.
    before = text[max(0, start - 16) : start]
    opened = _OPENED.search(before)
    return _THOUGHT.finditer(text, start if opened is None else start - len(before) + opened.start(), end)


def _split(thoughts: Sequence[re.Match[str]], runs: Runs, length: int) -> Runs:
    """Cut what a message wrote in one piece where a thought begins and ends in it, the white space after it included.

    What the template wrote around a thought stays whole.
    """
    # "<think>x</think>\n\nYes" in one content is cut ahead of "Yes": the line breaks count as reasoning too.
    ends, cuts = [*runs.starts[1:].tolist(), length], []
    for thought in thoughts:
        for edge, cut in ((thought.start(), thought.start()), (thought.end(1), thought.end())):
            run = int(np.searchsorted(runs.starts, edge, side="right")) - 1
            if runs.own[run] and runs.starts[run] < edge and cut < ends[run]:
                cuts.append(cut)
    if not cuts:
        return runs
    starts = np.union1d(runs.starts, np.array(cuts, dtype=np.int32))
    whole = np.searchsorted(runs.starts, starts, side="right") - 1
    return Runs._make(array[whole] for array in runs)._replace(starts=starts)


def _mark(thoughts: Sequence[re.Match[str]], runs: Runs) -> Runs:
    """Call everything from ``<think>`` to ``</think>`` inside a span reasoning, whoever wrote it."""
    for thought in thoughts:
        # In a message's own text `_split` has cut ahead of the first tag and behind the white space after the last one:
        # the run with that white space begins before `end(1)`, so it is marked too.
        first, end = np.searchsorted(runs.starts, [thought.start(), thought.end(1)])
        runs.part[first:end] = _CODE["reasoning"]
    return runs
