"""Rows that a template renders alike, whatever their texts.

A template is a program. If it asks of a row's texts only questions that another row answers in the same way, it takes
the same path through itself: the text is the same but for the messages' own words, and so are the spans and all that
is known of each piece. Such rows are of one *shape*: rendered and checked in full once, and from then on filled in.
What the check itself reads of the texts is asked too (are they blank, do they hold a thought's tags).
"""

from __future__ import annotations

import datetime
from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftplug.data.render.parts import Runs
from sftplug.data.render.pieces import REASONING, Layout
from sftplug.data.render.questions import Field, NotRepeatable, Question, QuestionLog
from sftplug.data.render.rendered import Rendered, Span

Messages = Sequence[Mapping[str, Any]]
PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant"})
"""Roles whose messages have no parts but texts."""
_THOUGHT = "think>"
"""What both tags of a thought contain; the check looks for them in texts."""
VARIANTS = 4
"""So many shapes are learned of rows with the same roles, for different answers; more are rendered in full."""
KNOWN = 4096
"""So many combinations of roles are remembered."""
LONGEST = 100
"""Rows of more messages are rendered in full: few are of the shape of another, and it takes long to learn one."""


def texts_of(messages: Messages) -> dict[Field, str] | None:
    """Return every text of a few plain messages; None if one has anything but a role, a content and a reasoning."""
    texts: dict[Field, str] = {}
    if len(messages) > LONGEST:
        return None
    for index, message in enumerate(messages):
        content, reasoning = message.get("content"), message.get(REASONING)
        known = 2 + (reasoning is not None)
        if type(content) is not str or len(message) != known or message.get("role") not in PLAIN_ROLES:
            return None
        texts[index, "content"] = content
        if reasoning is not None:
            texts[index, REASONING] = reasoning
    return texts if all(map(is_ordinary, texts.values())) else None


def is_ordinary(text: Any) -> bool:
    """Whether the check has nothing to say of a text but where it stands: it is not blank, and holds no thought."""
    return type(text) is str and _THOUGHT not in text and bool(text) and not text.isspace()


def key_of(roles: Sequence[str], texts: Mapping[Field, str], arguments: Hashable) -> Hashable:
    """Return what rows of one shape have in common before any question is asked."""
    return tuple(roles), tuple(texts), arguments


class Point(NamedTuple):
    """A place in the text of every row of a shape: so many characters of the template, so many slots before it."""

    fixed: int
    slots: int


class Points(NamedTuple):
    """Points in arrays, (P,) each."""

    fixed: NDArray[np.int32]
    slots: NDArray[np.int32]

    @classmethod
    def of(cls, points: Sequence[Point]) -> Points:
        """Return points as arrays."""
        return cls(*np.array(points, dtype=np.int32).reshape(-1, 2).T)


@dataclass(frozen=True, slots=True)
class Outline:
    """A text with slots: what the template writes, and between it whole texts of messages."""

    literals: tuple[str, ...]
    """What stands before each slot, and after the last."""
    slots: tuple[Field, ...]

    def continues(self, other: Outline) -> bool:
        """Whether `other` is how every text of this outline begins."""
        count = len(other.slots)
        return (
            self.slots[:count] == other.slots
            and self.literals[:count] == other.literals[:count]
            and self.literals[count].startswith(other.literals[count])
        )

    def fill(self, texts: Sequence[str]) -> str:
        """Return the text with `texts` in its slots."""
        parts = [*self.literals, *texts]  # makes room
        parts[::2], parts[1::2] = self.literals, texts
        return "".join(parts)


def outline(layout: Layout, texts: Mapping[Field, str]) -> Outline:
    """Return what of `layout` is the template's. Raises NotRepeatable for texts in pieces, or changed."""
    # ChatML of "Hi" and "Yes": literals "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n" and "<|im_end|>\n",
    # slots (0, "content") and (1, "content"). With other texts in the slots it is another row's text.
    literals, slots = [""], []
    for piece in layout.pieces:
        if not piece.field:
            literals[-1] += layout.text[piece.start : piece.end]
            continue
        slot = (-1 if piece.message is None else piece.message, piece.field)
        if piece.offset != 0 or piece.end - piece.start != len(texts.get(slot, "")):
            raise NotRepeatable
        slots.append(slot)
        literals.append("")
    return Outline(tuple(literals), tuple(slots))


@dataclass(frozen=True, slots=True)
class Shape:
    """A rendered and checked row, its texts left open."""

    outline: Outline
    questions: tuple[Question, ...]
    day: datetime.date | None
    """The day it was learned, if the template prints the date."""
    starts: Points
    """Where each run starts."""
    runs: Runs
    """What else is known of each run; only the starts differ from row to row."""
    spans: tuple[tuple[Point, Point, int], ...]

    def fits(self, texts: Mapping[Field, str]) -> bool:
        """Whether the template would treat `texts` as it did those that the shape was learned from."""
        if self.day is not None and self.day != datetime.date.today():
            return False
        return all(question.answered_alike(texts) for question in self.questions)

    def fill(self, texts: Mapping[Field, str]) -> Rendered:
        """Return the row that the template renders of `texts`."""
        filled = [texts[slot] for slot in self.outline.slots]
        before = [0, *accumulate(map(len, filled))]
        starts = self.starts.fixed + np.array(before, dtype=np.int32)[self.starts.slots]
        spans = tuple(
            [
                Span(start.fixed + before[start.slots], end.fixed + before[end.slots], message)
                for start, end, message in self.spans
            ]
        )
        return Rendered(self.outline.fill(filled), Runs(starts, *self.runs[1:]), spans, ())


def learn(
    texts: Mapping[Field, str],
    rendered: Rendered,
    render: Callable[[], Layout],
    prompts: Sequence[Callable[[], Layout]],
    asking: QuestionLog,
) -> Shape | None:
    """Return the shape of a row, or None where its render says nothing about others.

    `rendered` is the row in full, without findings; `render` and `prompts` render it and the prompt of each of its
    turns with texts that note in `asking` what is asked of them.
    """
    asking.questions.clear()
    asking.by_the_day = False
    try:
        whole = outline(render(), texts)
        if not all(whole.continues(outline(prompt(), texts)) for prompt in prompts):
            return None
        places = _Places(whole, texts)
        runs, spans = [places.point(int(start)) for start in rendered.runs.starts], []
        for span in rendered.spans:
            spans.append((places.point(span.start), places.point(span.end), span.message))
        shape = Shape(
            outline=whole,
            questions=tuple(asking.questions),
            day=datetime.date.today() if asking.by_the_day else None,
            starts=Points.of(runs),
            runs=rendered.runs,
            spans=tuple(spans),
        )
        # Filled with its own texts the shape must be the row; what was not understood shows here, not in another row.
        return shape if shape.fits(texts) and shape.fill(texts).text == rendered.text else None
    except NotRepeatable:
        return None


class _Places:
    """Finds points from offsets in the text of one row."""

    def __init__(self, whole: Outline, texts: Mapping[Field, str]) -> None:
        sizes = [len(texts[slot]) for slot in whole.slots]
        fixed = [0, *accumulate(len(literal) for literal in whole.literals)]
        filled = [0, *accumulate(sizes)]
        # Slot k begins after k texts and k + 1 literals.
        self._begins = [fixed[index + 1] + filled[index] for index in range(len(sizes))]
        self._sizes, self._filled = sizes, filled

    def point(self, at: int) -> Point:
        """Return the point at offset `at`. Raises NotRepeatable for one inside of a message's text."""
        # In "<|im_start|>user\nHi<|im_end|>…", offset 17 is Point(17, 0), and 19, behind the text, is Point(17, 1): 17
        # characters of the template and one text before it. 18 is inside of "Hi": no place in another text.
        slot = bisect_right(self._begins, at) - 1
        if slot < 0:
            return Point(at, 0)
        begin, size = self._begins[slot], self._sizes[slot]
        if begin == at:
            return Point(at - self._filled[slot], slot)
        if at < begin + size:
            raise NotRepeatable
        return Point(at - self._filled[slot + 1], slot + 1)


@dataclass(slots=True)
class Shapes:
    """The shapes that a template is known to have."""

    known: dict[Hashable, list[Shape]] = field(default_factory=dict)
    misses: dict[Hashable, int] = field(default_factory=dict)

    def find(self, key: Hashable, texts: Mapping[Field, str]) -> Shape | None:
        """Return a shape that `texts` fit, if one is known."""
        return next((shape for shape in self.known.get(key, ()) if shape.fits(texts)), None)

    def worth_learning(self, key: Hashable) -> bool:
        """Whether a row that fits no shape should be learned from: not the only one of its kind, not one too many."""
        # To learn a shape takes a render of each prompt, which a row that is the only one of its kind never earns.
        misses = self.misses[key] = self.misses.get(key, 0) + 1
        return 1 < misses <= VARIANTS + 1 and len(self.known) < KNOWN

    def add(self, key: Hashable, shape: Shape) -> None:
        """Remember `shape`."""
        self.known.setdefault(key, []).append(shape)
