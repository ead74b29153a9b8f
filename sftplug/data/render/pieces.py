"""Run an instrumented template over messages, and lay out the text as pieces with their writers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import jinja2

from sftplug.data.render.instrument import TracedEnvironment
from sftplug.data.render.provenance import GIVEN, MENTIONED, Active, TextRun, runs_of

REASONING = "reasoning_content"
_ALIASES = {"thinking": REASONING, "reasoning": REASONING}
_NAMING_KEYS = frozenset({"role", "type", "id", "tool_call_id"})
"""Keys whose values templates compare and look up; where they print them, that is no more than a header."""


class Piece(NamedTuple):
    """Characters of the text that came from one place."""

    start: int
    end: int
    message: int | None
    """The message the piece belongs to: whose own text it is, or which the template was working on."""
    field: str
    """Key of the message it came from; empty for the template's own text."""
    offset: int
    within: int | None
    """The message the template was working on."""
    given: bool = False
    """Whether the row wrote it: a message, or a tool, an argument's name, an id."""


@dataclass
class Layout:
    """A rendered text and its pieces, which tile it. What is asked of it for each turn must not look at all of it."""

    text: str
    pieces: list[Piece]
    by_message: dict[int, list[Piece]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the pieces by message."""
        for piece in self.pieces:
            if piece.message is not None:
                self.by_message.setdefault(piece.message, []).append(piece)

    def of(self, message: int) -> list[Piece]:
        """Return the pieces that belong to `message`, in order."""
        return self.by_message.get(message, [])

    def content(self, message: int) -> list[Piece]:
        """Return the pieces that are the own text of `message`, empty ones too."""
        return [piece for piece in self.of(message) if piece.field]

    @cached_property
    def _starts(self) -> list[int]:
        return [piece.start for piece in self.pieces]

    def between(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces that have something between two offsets."""
        for index in range(max(bisect_right(self._starts, start) - 1, 0), bisect_left(self._starts, end)):
            if self.pieces[index].end > start:
                yield self.pieces[index]

    def at(self, position: int) -> Piece | None:
        """Return the piece that the character at `position` is of; None at the end of the text."""
        return next(self.between(position, position + 1), None)

    def until(self, position: int) -> Iterator[Piece]:
        """Yield the pieces that end by `position`, the last one first."""
        for index in range(bisect_right(self._starts, position) - 1, -1, -1):
            if self.pieces[index].end <= position:
                yield self.pieces[index]

    def first_said(self, message: int) -> int | None:
        """Return where the first character of `message` itself stands; None if it has none in the text."""
        return next((piece.start for piece in self.of(message) if piece.field and piece.end > piece.start), None)

    @cached_property
    def _reaches(self) -> dict[tuple[int, ...], tuple[list[int], list[int]]]:
        return {}

    def in_order(self, messages: tuple[int, ...], message: int, position: int) -> bool:
        """Whether of `messages`, which ascend, those before `message` begin ahead of `position`, and no others do."""
        if messages not in self._reaches:
            # Messages 0, 2, 4 begin at 5, 40, 80: those before message 3 begin at 40 at the latest, the others at 80 at
            # the earliest. Kept for every place in the list, so that a turn need not go through all messages.
            first, end = [self.first_said(index) for index in messages], len(self.text)
            latest = accumulate((-1 if at is None else at for at in first), max, initial=-1)
            earliest = accumulate((end if at is None else at for at in reversed(first)), min, initial=end)
            self._reaches[messages] = list(latest), list(earliest)[::-1]
        before, after = self._reaches[messages]
        index = bisect_left(messages, message)
        return before[index] < position <= after[index]


def lay_out(
    template: jinja2.Template,
    environment: TracedEnvironment,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Layout:
    """Render `messages` and return text and pieces; what is `given` comes from the row too. Raises what it raises."""
    environment.owners.clear()
    environment.given.clear()
    environment.active.message = None
    environment.active.stack.clear()
    traced = [trace_message(message, index, environment) for index, message in enumerate(messages)]
    others = {name: trace_given(value, environment) for name, value in given.items()}
    context = template.new_context({**variables, **others, "messages": traced})
    texts: list[str] = []
    pieces: list[Piece] = []
    position = 0
    # Piece by piece, as it is printed: only at that moment `active` tells which message the template works on.
    for text in template.root_render_func(context):
        texts.append(text)
        for piece in pieces_of(text, position, environment.active):
            pieces.append(piece)
            position = piece.end
    return Layout("".join(texts), pieces)


def pieces_of(text: str, position: int, active: Active) -> Iterator[Piece]:
    """Yield the pieces of a text that is printed at `position`."""
    for run in runs_of(text, active):
        yield _piece(run, position, active)
        position += run.length


def _piece(run: TextRun, position: int, active: Active) -> Piece:
    end, within = position + run.length, active.message if run.within is None else run.within
    if run.field.startswith(MENTIONED):
        # A tool's turn may name the function that was called: there it is text of the tool's turn.
        for place in (active.message, within):
            if place not in (None, run.message):
                return Piece(position, end, place, "", -1, place, True)
    if run.field == GIVEN:
        return Piece(position, end, within, "", -1, within, True)
    # The template's own text is of the message that was at hand when it was kept, or else when it is printed.
    message = run.message if run.field or run.message is not None else within
    return Piece(position, end, message, run.field, run.offset, within, bool(run.field))


# --- what a template sees ---------------------------------------------------------------------------------------------


def trace_message(message: Mapping[str, Any], index: int, environment: TracedEnvironment) -> dict[str, Any]:
    """Copy a message with every string in it traced."""
    traced = {key: _trace(value, key, index, environment) for key, value in message.items()}
    # By identity, for two messages may be equal. The copies live as long as the render, so no id is given out twice.
    environment.owners[id(traced)] = index
    return traced


def _trace(value: Any, key: str, index: int, environment: TracedEnvironment) -> Any:
    """Copy `value` with every string in it traced to (index, path of keys)."""
    if isinstance(value, str):
        if key == "role":
            return str.__str__(value)  # compared at every turn, and one of a few words
        if key.rpartition(".")[2] in _NAMING_KEYS:
            return _given(value, environment)
        return environment.trace(value, [TextRun(len(value), index, _ALIASES.get(key, key), 0)])
    copied: Any = value
    if isinstance(value, Mapping):
        copied = {
            _given(name, environment): _trace(item, f"{key}.{name}", index, environment) for name, item in value.items()
        }
    elif isinstance(value, list | tuple):
        copied = [_trace(item, f"{key}[{number}]", index, environment) for number, item in enumerate(value)]
    if copied is not value:
        environment.owners[id(copied)] = index
    return copied


def trace_given(value: Any, environment: TracedEnvironment) -> Any:
    """Copy `value`, which is of the row but of no message, with every string in it traced, keys too."""
    if isinstance(value, str):
        return _given(value, environment)
    copied: Any = value
    if isinstance(value, Mapping):
        copied = {_given(name, environment): trace_given(item, environment) for name, item in value.items()}
    elif isinstance(value, list | tuple):
        copied = [trace_given(item, environment) for item in value]
    if copied is not value:
        environment.given.add(id(copied))
    return copied


def _given(value: Any, environment: TracedEnvironment) -> Any:
    return environment.trace(value, [TextRun(len(value), None, GIVEN, -1)]) if isinstance(value, str) else value
