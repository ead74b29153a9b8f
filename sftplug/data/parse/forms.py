"""How a template writes what an assistant says: literals, and between them its words and calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sftplug.data.parse.values import Codec, ValueReader

Slot = Literal["reasoning", "content", "calls"]
Part = Literal["name", "arguments", "id"]
NAME = "\0name\0"
"""Stands in a literal where the name of the call is written once more."""


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of reply, such as a thought and then calls."""

    slots: tuple[Slot, ...]
    literals: tuple[str, ...]
    """What stands before each slot, and after the last."""
    continues: bool
    """Whether it goes on from what inference shows before a reply; some templates write another header in a row."""

    def without(self, stop: str) -> Form:
        """Return the form of a reply whose `stop` is cut off."""
        return Form(self.slots, (*self.literals[:-1], self.literals[-1].removesuffix(stop)), self.continues)


@dataclass(frozen=True, slots=True)
class ValueForm:
    """What stands around the value of an argument."""

    before: str
    """Between key and value."""
    between: str
    """Between value and the next key."""
    after: str
    """Between the last value and what follows all arguments."""


@dataclass(frozen=True, slots=True)
class ArgumentsForm:
    """How the arguments of a call are written."""

    none: str
    """What is written where there are none."""
    opening: str
    """What stands before the first key."""
    text: ValueForm
    other: ValueForm
    """Of numbers, lists and whatever is no text."""
    codec: Codec
    reader: ValueReader
    following: str
    """What always follows them."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a call is written."""

    parts: tuple[Part, ...]
    """In their order."""
    literals: tuple[str, ...]
    """Between the parts."""
    between: str | None
    """Between two calls; None for a template that writes only one."""
    arguments: ArgumentsForm | None
    """None where arguments are given to the template as JSON text."""
    with_id: bool
    """Whether a call needs an id, which the text may not hold."""
    sample: str
    """A call as the template writes it."""
    named_by_id: bool = False
    """Whether the name stands in the id alone, ``functions.weather:0``, as Kimi K2 writes calls."""


@dataclass(frozen=True, slots=True)
class Forms:
    """All kinds of replies that a template can write, the most specific first."""

    replies: tuple[Form, ...]
    call: CallForm | None
    stops: tuple[str, ...]
    """What ends a reply, the longest first."""
    marks: tuple[str, ...]
    """What is written like control tokens within replies: tags of thoughts and calls."""
    thought_marks: tuple[str, ...]
    """Those around thoughts, and the stops."""
    unread_calls: bool
    """Whether the template writes calls, and not so that they could be found again."""
    parts: bool
    """Whether the template writes a content only where it is a list of parts, as templates of models with images do."""
