"""What hypothesis draws: rows that are damaged, conversations of any shape. Imported when a check runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from sftplug.types.conversation import Conversation, Message, ToolCall
from sftplug.types.tokens import LongRow

JUNK: tuple[Any, ...] = (
    None,
    True,
    3,
    0.5,
    "",
    "text",
    [],
    [None],
    ["text"],
    [[]],
    {},
    {"text": None},
    {"a": {"b": 1}},
)
"""What may stand in a place where something else belongs."""


@st.composite
def damaged_rows(draw: DrawFn, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw a row with up to three places in it missing, or with something else in them."""
    row = copy.deepcopy(dict(draw(st.sampled_from(rows))))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(row))
        if places:
            holder, key = draw(st.sampled_from(places))
            if draw(st.booleans()):
                del holder[key]
            else:
                holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return row


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (holder, key) for every value inside of `value`, the outer before the inner."""
    if isinstance(value, dict | list):
        keys: Any = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield value, key
            yield from _places(value[key])


_TEXTS = st.text(alphabet="ab Z19.,!é漢\n<|", max_size=12)
# What stands here twice is drawn twice as often.
_ROLES = ("system", "developer", "user", "assistant", "assistant", "tool")
_WEIGHTS = st.sampled_from((None, None, 0.0, 0.5, 2.0))


@st.composite
def conversations(draw: DrawFn) -> Conversation:
    """Draw a conversation of any roles in any order, or a document."""
    if draw(st.integers(0, 9)) == 0:
        return Conversation((Message("document", draw(_TEXTS)),), plain=True)
    roles = draw(st.lists(st.sampled_from(_ROLES), max_size=6))
    # One turn whatever else is drawn, for no conversation is empty.
    messages = tuple(draw(_messages(role)) for role in [*roles, "user"])
    completion = draw(st.one_of(st.none(), st.integers(0, len(messages) - 1)))
    return Conversation(messages, completion_from=completion, weight=draw(st.sampled_from((1.0, 1.0, 0.5))))


@st.composite
def _messages(draw: DrawFn, role: str) -> Message:
    content: Any = draw(_TEXTS)
    if draw(st.integers(0, 4)) == 0:
        content = [{"type": "text", "text": content}, {"type": "text", "text": draw(_TEXTS), "weight": 0.5}]
    if role != "assistant":
        return Message(role, content, weight=draw(_WEIGHTS))
    calls = (ToolCall("look", {"w": draw(_TEXTS)}),) if draw(st.booleans()) else ()
    reasoning = draw(st.one_of(st.none(), _TEXTS))
    return Message(role, content, calls, reasoning_content=reasoning, weight=draw(_WEIGHTS))


def batches() -> SearchStrategy[list[Conversation]]:
    """Draw the conversations of a batch."""
    return st.lists(conversations(), min_size=1, max_size=5)


@st.composite
def exchanges(draw: DrawFn) -> list[dict[str, Any]]:
    """Draw one to three exchanges of user and assistant, as chat templates get them; each says something."""
    messages: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        for role in ("user", "assistant"):
            words = draw(st.text(alphabet="abc XYZ 019 .,!?é漢\n", max_size=20))
            messages.append({"role": role, "content": f"{words}{len(messages)}."})
    return messages


@st.composite
def long_rows(draw: DrawFn) -> LongRow:
    """Draw a row that is too long; its messages differ from each other."""
    conversation = draw(conversations())
    counts = [draw(st.integers(3, 40)) for _ in conversation.messages]
    length = sum(counts) + draw(st.integers(0, 5))
    return LongRow(conversation, counts, length, draw(st.integers(1, length - 1)))
