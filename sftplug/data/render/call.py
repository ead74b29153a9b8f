"""What a chat template is called with."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jinja2 import meta, nodes

from sftplug.data.render.budget import measured
from sftplug.errors import TemplateError
from sftplug.types.conversation import GIVEN_TO_TEMPLATES

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
PROBE = {"role": "user", "content": "sftplug"}
"""A user's message that tells how a template goes on."""


@dataclass(frozen=True)
class Call:
    """What a template is called with, as transformers would call it."""

    messages: Messages
    tools: Tools
    kwargs: Mapping[str, Any]
    ends: frozenset[str] = frozenset()
    """The model's end tokens, when they are known."""
    given: frozenset[str] = frozenset()
    """Names of the arguments that the row itself gives, and not the tokenizer."""
    size: int = 0
    """How many characters the row has, numbers and lists counted too."""
    depth: int = 0
    """How deep it is nested."""

    def until(self, message: int) -> Call:
        """Return the call with only the messages before `message`."""
        return replace(self, messages=self.messages[:message])

    def followed(self, message: int) -> Call:
        """Return the call with the messages up to and with `message`, and a user's after them."""
        return replace(self, messages=[*self.messages[: message + 1], dict(PROBE)])

    @cached_property
    def users(self) -> tuple[int, ...]:
        """The indices of the users' messages."""
        return tuple(index for index, message in enumerate(self.messages) if message.get("role") == "user")

    @cached_property
    def assistants(self) -> list[int]:
        """The indices of the assistant's messages."""
        return assistants_in(self.messages)

    @property
    def tool_names(self) -> str:
        """The names of the tools, for a message to the user."""
        return ", ".join(str(tool.get("function", tool).get("name", "?")) for tool in self.tools or ())

    @cached_property
    def answers(self) -> frozenset[int]:
        """The indices of the tools' messages."""
        return frozenset(index for index, message in enumerate(self.messages) if message.get("role") == "tool")


def assistants_in(messages: Messages) -> list[int]:
    """Return the indices of the assistant's messages."""
    return [index for index, message in enumerate(messages) if message.get("role") == "assistant"]


def arguments_of(tree: nodes.Template) -> frozenset[str]:
    """Return the names that a template asks its caller for, beyond those that every caller gives."""
    return frozenset(meta.find_undeclared_variables(tree)) - GIVEN_TO_TEMPLATES


def literals_of(tree: nodes.Template) -> Iterator[str]:
    """Yield the texts that stand in a template: what it writes, and what it compares with."""
    for node in tree.find_all((nodes.TemplateData, nodes.Const)):
        text = node.data if isinstance(node, nodes.TemplateData) else node.value  # type: ignore[attr-defined]
        if isinstance(text, str):
            yield text


def make_call(
    messages: Messages,
    tools: Tools,
    kwargs: Mapping[str, Any],
    ends: frozenset[str] = frozenset(),
    given: frozenset[str] = frozenset(),
) -> Call:
    """Return a call with its data as transformers gives it to templates: plain, reasoning under all of its names.

    Raises TemplateError for data that is nested deeper than transformers follows it.
    """
    from transformers.utils import chat_template_utils

    # Transformers' own functions, so that both sides see the same; releases before them pass the data as it is.
    plain = getattr(chat_template_utils, "_plain_template_data", lambda value: value)
    alias = getattr(chat_template_utils, "_alias_reasoning_fields", list)
    try:
        chat = alias([plain(dict(message)) for message in messages])
        tools, kwargs = plain(list(tools)) if tools else None, plain(dict(kwargs))
    except RecursionError as error:
        raise TemplateError("the row is nested deeper than chat templates are given it.") from error
    # Without a limit: this is the size from which the budget of its renders follows.
    held = measured((chat, tools, kwargs), sys.maxsize)
    return Call(chat, tools, kwargs, ends, given, held.work, held.depth)
