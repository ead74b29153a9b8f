"""A rendered row: the text, who wrote each of its characters, and the spans to train."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftplug.data.render.check import Finding
from sftplug.data.render.parts import Runs, label_parts
from sftplug.data.render.pieces import Layout
from sftplug.errors import MaskError
from sftplug.types.tokens import PARTS


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
    """A text, who wrote each of its characters, and the spans to train."""

    text: str
    runs: Runs
    """Who wrote what: R runs that tile the text."""
    spans: tuple[Span, ...]
    """In order; a turn may have two."""
    findings: tuple[Finding, ...]

    def with_stops(self, stop: str) -> Rendered:
        """Return the row with `stop` added at the end of every span that has none."""
        lacking = {finding.message for finding in self.findings if finding.kind == "no_stop"}
        row = self
        # From the last on: what is put in moves only what comes after it.
        for index in reversed(range(len(self.spans))):
            if self.spans[index].message in lacking:
                row = _insert_stop(row, index, stop)
        return row


def to_row(layout: Layout, spans: Sequence[Span], findings: Sequence[Finding] = ()) -> Rendered:
    """Return `layout` as a row with `spans`."""
    runs = label_parts(layout, [(span.start, span.end, span.message) for span in spans])
    return Rendered(layout.text, runs, tuple(spans), tuple(findings))


def raise_on_errors(rendered: Rendered, name: str) -> None:
    """Raise MaskError when the check found an error."""
    wrong = [finding.text for finding in rendered.findings if finding.severity == "error"]
    if wrong:
        raise MaskError(f"chat template '{name}': " + " ".join(wrong))


def continue_prompt(prompt: Layout, whole: Rendered, message: int) -> Rendered:
    """Return the prompt, and after it what of `whole` is trained of `message`."""
    row = to_row(prompt, [])
    text, runs = row.text, row.runs
    for span in whole.spans:
        if span.message == message:
            runs = runs.followed_by(len(text), whole.runs.cut(span.start, span.end))
            text += whole.text[span.start : span.end]
    return Rendered(text, runs, (Span(len(row.text), len(text), message),), ())


_TAIL = re.compile(r"<[^\s<>]+>$")


def lost_stop(alone: str, whole: str) -> str:
    """Return the stop that the next message printed in the whole text and that the turn alone lacks."""
    # "Yes<|im_end|>" in the conversation and "Yes" alone: the next message prints "<|im_end|>", and here there is none.
    stop = _TAIL.search(whole)
    return stop.group() if stop is not None and not alone.endswith(stop.group()) and not _TAIL.search(alone) else ""


def cut_after(row: Rendered, end: int, stop: str) -> Rendered:
    """Return `row` without what stands after `end`, and with `stop` there."""
    cut = replace(row, text=row.text[:end], runs=row.runs.cut(0, end))
    return _insert_stop(cut, len(cut.spans) - 1, stop) if stop else cut


def _insert_stop(row: Rendered, index: int, stop: str) -> Rendered:
    """Return `row` with `stop` after its span `index`, as the end of that turn."""
    at, shift = row.spans[index].end, len(stop)
    ending = Runs(
        np.zeros(1, np.int32),
        np.array([row.spans[index].message], np.int32),
        np.array([PARTS.index("end_of_turn")], np.int8),
        np.zeros(1, bool),
        np.full(1, -1, np.int16),
        np.zeros(1, bool),
    )
    runs = row.runs.cut(0, at).followed_by(at, ending)
    if at < len(row.text):
        runs = runs.followed_by(at + shift, row.runs.cut(at, len(row.text)))
    spans = tuple(
        # The span itself grows by the stop, and those after it move.
        replace(span, start=span.start + shift * (number > index), end=span.end + shift * (number >= index))
        for number, span in enumerate(row.spans)
    )
    return Rendered(row.text[:at] + stop + row.text[at:], runs, spans, row.findings)
