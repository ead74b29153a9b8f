"""Contents in parts, on chat templates that take texts: joined line by line, as servers join them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sftplug.errors import RowError, TemplateError, TemplateStopped
from sftplug.types.conversation import Conversation, Message

JOINED = "text parts joined"
Write = Callable[[Conversation], str]
"""Renders a conversation. Raises TemplateError where the template refuses it."""


def is_all_text(conversation: Conversation) -> bool:
    """Whether every message says one text, which any template takes."""
    return all(type(message.content) is str for message in conversation.messages)


def as_the_template_takes_it(conversation: Conversation, write: Write) -> Conversation:
    """Return a conversation with its parts joined and its nulls empty, where the template renders nothing else.

    vLLM and llama.cpp join parts by line breaks on such templates. One that renders parts gets them as they are, and
    so does one that refuses the conversation either way: what is wrong is then something else. Raises RowError where
    the parts have loss weights of their own, which a joined text can't have.
    """
    joined = replace(conversation, messages=tuple(map(_joined, conversation.messages)))
    plain = _written(write, joined)
    if plain is None:
        return conversation
    shown = _written(write, conversation)  # none where the template adds texts to each other: a list is no text
    if shown is not None and _shows_the_same(conversation, shown, plain):
        return conversation
    for index, message in enumerate(conversation.messages):
        if any("weight" in part for part in _parts(message)):
            text = "has parts with loss weights, and the chat template takes texts only. Give the message the weight"
            raise RowError(f"messages[{index}].content", text)
    return joined


def _written(write: Write, conversation: Conversation) -> str | None:
    """Return what the template renders; None where it refuses the conversation."""
    try:
        return write(conversation)
    except TemplateStopped:
        raise  # it would be stopped at every row
    except TemplateError:
        return None


def joined_messages(before: Conversation, after: Conversation) -> list[int]:
    """Return the indices of the messages of which several parts became one text."""
    pairs = enumerate(zip(before.messages, after.messages, strict=True))
    return [index for index, (old, new) in pairs if old is not new and len([*_parts(old)]) > 1]


def _joined(message: Message) -> Message:
    if isinstance(message.content, str):
        return message
    return replace(message, content="\n".join(part["text"] for part in _parts(message)))


def _parts(message: Message) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a message that has some; they are texts, other sorts are refused before."""
    if message.content is not None and not isinstance(message.content, str):
        yield from message.content


def _shows_the_same(conversation: Conversation, shown: str, joined: str) -> bool:
    """Whether a text holds what the parts say, and holds it as text: not as Python or JSON writes a list."""
    for mark in ("'type': 'text'", '"type": "text"'):
        if shown.count(mark) > joined.count(mark):
            return False
    said = {part["text"].strip() for message in conversation.messages for part in _parts(message)} - {""}
    # As often, for what is short stands elsewhere too: of "3" the template's own text may hold one.
    return all(shown.count(text) >= joined.count(text) for text in said)
