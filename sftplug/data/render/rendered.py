"""A rendered row: the text, who wrote each of its characters, and the spans to train."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sftplug.data.render.check import Finding
from sftplug.data.render.parts import label_parts
from sftplug.data.render.pieces import Layout, Piece
from sftplug.errors import MaskError
from sftplug.tokens import PARTS


@dataclass(frozen=True, slots=True)
class Span:
    """What the model itself must produce: one stretch of an assistant's turn."""

    start: int
    end: int
    """Character offsets in the text, `end` exclusive."""
    message: int
    """Index of the assistant message."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text, who wrote each of its characters, and the spans to train. R runs tile the text."""

    text: str
    starts: NDArray[np.int32]
    """(R,) where each run starts."""
    message: NDArray[np.int32]
    """(R,) index of the message a run belongs to; -1 for the template's own text."""
    part: NDArray[np.int8]
    """(R,) index into `sftplug.PARTS`."""
    spans: tuple[Span, ...]
    """In order; a turn may have two."""
    findings: tuple[Finding, ...]

    def with_stops(self, stop: str) -> Rendered:
        """Return the row with `stop` added at the end of every span that has none."""
        lacking = {finding.message for finding in self.findings if finding.kind == "no_stop"}
        row = self
        for index in reversed(range(len(self.spans))):
            if self.spans[index].message in lacking:
                row = _insert_stop(row, index, stop)
        return row


def to_row(layout: Layout, spans: Sequence[Span], findings: Sequence[Finding] = ()) -> Rendered:
    """Return `layout` as a row with `spans`."""
    starts, message, part = label_parts(layout, [(span.start, span.end, span.message) for span in spans])
    return Rendered(layout.text, starts, message, part, tuple(spans), tuple(findings))


def refuse(rendered: Rendered, name: str) -> None:
    """Raise MaskError when the check found an error."""
    wrong = [finding.text for finding in rendered.findings if finding.severity == "error"]
    if wrong:
        raise MaskError(f"chat template '{name}': " + " ".join(wrong))


def continue_prompt(prompt: Layout, text: str, message: int) -> Rendered:
    """Return the prompt with `text` after it as the turn of `message`."""
    start, end = len(prompt.text), len(prompt.text) + len(text)
    own = Piece(start, end, message, "content", -1, message)
    return to_row(Layout(prompt.text + text, [*prompt.pieces, own]), [Span(start, end, message)])


_TAIL = re.compile(r"<[^\s<>]+>$")


def lost_stop(alone: str, whole: str) -> str:
    """Return the stop that the next message printed in the whole text and that the turn alone lacks."""
    stop = _TAIL.search(whole)
    return stop.group() if stop is not None and not alone.endswith(stop.group()) and not _TAIL.search(alone) else ""


def cut_after(row: Rendered, end: int, stop: str) -> Rendered:
    """Return `row` without what stands after `end`, and with `stop` there."""
    keep = row.starts < end
    cut = replace(row, text=row.text[:end], starts=row.starts[keep], message=row.message[keep], part=row.part[keep])
    return _insert_stop(cut, len(cut.spans) - 1, stop) if stop else cut


def _insert_stop(row: Rendered, index: int, stop: str) -> Rendered:
    """Return `row` with `stop` after its span `index`, as the end of that turn."""
    at, shift, message = row.spans[index].end, len(stop), row.spans[index].message
    before = row.starts < at
    starts = np.concatenate([row.starts[before], [at], row.starts[~before] + shift])
    owners = np.concatenate([row.message[before], [message], row.message[~before]])
    part = np.concatenate([row.part[before], [PARTS.index("end_of_turn")], row.part[~before]])
    if at < len(row.text) and not (row.starts == at).any():
        # The run that `stop` cuts in two goes on after it.
        cut = int(before.sum())
        starts = np.insert(starts, cut + 1, at + shift)
        owners, part = np.insert(owners, cut + 1, owners[cut - 1]), np.insert(part, cut + 1, part[cut - 1])
    spans = tuple(
        replace(span, start=span.start + shift * (number > index), end=span.end + shift * (number >= index))
        for number, span in enumerate(row.spans)
    )
    text = row.text[:at] + stop + row.text[at:]
    return Rendered(text, starts.astype(np.int32), owners.astype(np.int32), part.astype(np.int8), spans, row.findings)
