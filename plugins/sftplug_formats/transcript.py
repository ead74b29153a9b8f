"""Conversations that are one text, in which a marker before each turn says whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from sftplug import Field, Message, Recognized, RowError
from sftplug_formats.conversations import OneColumn
from sftplug_formats.fields import kind_of
from sftplug_formats.recognition import Rows, columns, has_text, most
from sftplug_formats.roles import Role
from sftplug_formats.text_calls import Notation
from sftplug_formats.turns import TurnReader

Markers = Mapping[str, str]

_HASHES = {"### Human:": "user", "### Assistant:": "assistant"}
_BLANK_LINES = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}
_CAPITALS = {"SYSTEM:": "system", "USER:": "user", "ASSISTANT:": "assistant", "FUNCTION RESPONSE:": "tool"}
_KNOWN: Sequence[Markers] = (_HASHES, _BLANK_LINES, _CAPITALS, {f" {mark}": role for mark, role in _CAPITALS.items()})
"""The markers of Guanaco, of HH-RLHF, of Glaive, and of Vicuna, where a turn follows the other on the same line."""


class Transcript(OneColumn):
    """A conversation in one text, with a marker before each turn: ``### Human: Hi?### Assistant: Hello.``

    The markers of Guanaco, HH-RLHF, Glaive and Vicuna are known. Spaces and empty lines at the edges of a turn are the
    transcript's own layout; a stop that ends it is left to the chat template. Whatever else stands there is read.
    """

    type: Literal["transcript"] = "transcript"
    column: str = "text"
    """Column that holds the text."""
    markers: dict[str, Role] | None = Field(None, min_length=2, examples=[{"Q:": "user", "A:": "assistant"}])
    """What stands before a turn, and whose turn it is: ``{"Q:": user, "A:": assistant}``. One that begins with a letter
    counts at the beginning of a line, others wherever they stand. Null takes the known ones with which a row begins."""
    before: Literal["error", "system"] = "error"
    """What a text before the first marker is: an error, or the system prompt."""
    stops: tuple[str, ...] = ("<|endoftext|>", "</s>")
    """What may end a turn, and is no part of it."""
    calls_in_text: Notation | None = "functioncall"
    """How replies write calls of tools in their text: here as Glaive wrote them, ``<functioncall> {…}``. Null leaves
    them text; `sharegpt` has all there is."""
    tools_in_system: bool = True
    """Whether the JSON of tools is taken out of the system prompt, and declared to the chat template, which shows it as
    the model expects it."""

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a column of texts that begin with the markers of a known transcript."""
        found = {name: way for name in columns(rows) if (way := transcripts(rows, name)) is not None}
        if {*found} == {"chosen", "rejected"}:
            del found["rejected"]
        if len(found) > 1:
            return f"the columns {' and '.join(found)} hold transcripts: `column` says which is meant"
        if not found:
            return "no column holds texts with `### Human:`, `USER:` or such before each turn"
        ((column, before),) = found.items()
        options = {**({} if column == "text" else {"column": column}), **({"before": before} if before else {})}
        preferred = ", what was preferred" if column == "chosen" else ""
        return Recognized(f"column {column}, a transcript{preferred}", options)

    def turns(self, value: Any) -> list[dict[str, str]]:
        """Return the turns of the text. Raises RowError where it does not begin with a marker."""
        if not isinstance(value, str):
            raise RowError(self.column, f"must be text, not {kind_of(value)}")
        markers = self.markers or _markers_of(value, self.stops) or _only_asked(value)
        if markers is None:
            raise RowError(self.column, f"has no turns that are marked as in any known transcript. {_WAY}")
        head, *turns = _cut(value, markers, self.stops)
        said = [{"role": role, "content": self._said(text, index)} for index, (role, text) in enumerate(turns)]
        if not head[1].strip():
            return said
        if self.before == "error":
            start = head[1].strip()[:40]
            raise RowError(
                self.column,
                f"begins with what no marker says the role of: {start!r}. If it is the system prompt, `before: system` "
                "in the format",
            )
        return [{"role": "system", "content": head[1].strip()}, *said]

    def lead(self, row: Mapping[str, Any], said: list[Message], reader: TurnReader, column: str) -> tuple[Message, ...]:
        """Return the system turn of its column, without a marker that it begins with."""
        text = row.get(self.system)
        marks = [mark.strip() for mark, role in (self.markers or _CAPITALS).items() if role == "system"]
        if isinstance(text, str) and (mark := next(filter(text.lstrip().startswith, marks), "")):
            row = {**row, self.system: _trimmed(text.lstrip()[len(mark) :])}
        return super().lead(row, said, reader, column)

    def _said(self, text: str, index: int) -> str:
        """Return a turn without its stop and the space around it. Raises RowError where it goes on behind a stop."""
        said = _trimmed(text)
        stop = next((stop for stop in self.stops if said.endswith(stop)), "")
        said = said[: len(said) - len(stop)].rstrip()
        if inner := next((stop for stop in self.stops if stop in said), ""):
            reason = f"turn {index + 1} goes on after its {inner}, and no marker says whose turn it is"
            raise RowError(self.column, reason)
        return said


_WAY = (
    "In the format, `markers` says what stands before each turn: `markers: {'Q:': user, 'A:': assistant}`. For text "
    "that no chat template is to render, `format: text`"
)


def transcripts(rows: Rows, column: str) -> str | None:
    """Return what the text before the first turn is, empty where there is none; None for a column of other things."""
    if not has_text(rows, column):
        return None
    if most(rows, column, lambda value: _begins(value)):
        return ""
    return "system" if most(rows, column, lambda value: _headed(value)) else None


def _begins(value: Any) -> bool:
    """Whether a text is a transcript from its beginning."""
    markers = _markers_of(value, ()) if isinstance(value, str) else None
    if markers is None:
        return False
    head, *turns = _cut(value, markers, ())
    return not head[1].strip() and {"user", "assistant"} <= {role for role, _ in turns}


def _headed(value: Any) -> bool:
    """Whether a text is one line or more of prose, and then a transcript that a user begins."""
    markers = _markers_of(value, ()) if isinstance(value, str) else None
    roles = [role for role, _ in _cut(value, markers, ())] if markers else []
    return roles[1:2] == ["user"] and "assistant" in roles


def _markers_of(text: str, stops: Sequence[str]) -> Markers | None:
    """Return the known markers that part a text into most turns, those of a user and an assistant; None for none."""
    best, most_turns = None, 1
    for markers in _KNOWN:
        turns = [role for role, _ in _cut(text, markers, stops)[1:]]
        if len(turns) > most_turns and {"user", "assistant"} <= {*turns}:
            best, most_turns = markers, len(turns)
    return best


def _only_asked(text: str) -> Markers | None:
    """Return the known markers of a text that is one question, to which nobody replies; None for another text."""
    for markers in _KNOWN:
        head, *turns = _cut(text, markers, ())
        if not head[1].strip() and [role for role, _ in turns] == ["user"]:
            return markers
    return None


def _cut(text: str, markers: Markers, stops: Sequence[str]) -> list[tuple[str, str]]:
    """Return (role, text) of each turn; first what stands before all turns, of the role ``""``."""
    places = [*_places(text, markers, stops)]
    edges = [start for start, _, _ in places] + [len(text)]
    turns = [(role, text[end:edge]) for (_, end, role), edge in zip(places, edges[1:], strict=True)]
    return [("", text[: edges[0]]), *turns]


def _places(text: str, markers: Markers, stops: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, role) of each marker. At the beginning, and after a stop, it may lack its white space."""
    # The longest first: `### Assistant (expert):` before `### Assistant`.
    names = sorted(markers, key=len, reverse=True)
    begins = "|".join([r"\A\s*", *(re.escape(stop) + r"\s*" for stop in stops)])
    branches = [rf"(?:{begins})(?P<b{index}>{re.escape(name.lstrip())})" for index, name in enumerate(names)]
    branches += [f"{_edge(name)}(?P<m{index}>{re.escape(name)})" for index, name in enumerate(names)]
    for match in re.finditer("|".join(branches), text):
        group = str(match.lastgroup)
        yield match.start(group), match.end(group), markers[names[int(group[1:])]]


def _edge(marker: str) -> str:
    """Return what must stand before a marker: a word of a text, such as ``Q:``, is one only where a line begins."""
    return r"(?m:^[ \t]*)" if marker[:1].isalnum() else ""


def _trimmed(text: str) -> str:
    """Return a text without empty lines and spaces at its edges, but with the indentation of its first line."""
    text = text.rstrip()
    lead = text[: len(text) - len(text.lstrip())]
    return text[lead.rfind("\n") + 1 :] if "\n" in lead else text.lstrip()
