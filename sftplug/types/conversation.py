"""Plain data from a dataset's source to a chat template.

The shapes are those of the OpenAI chat format, which is what chat templates are written against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftplug.types.decoded import Decoded

ROLES = ("system", "developer", "user", "assistant", "tool", "document")
"""The roles a format may write. ``document`` is plain text that no chat template renders."""

GIVEN_TO_TEMPLATES = frozenset(
    ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template", "conversations")
)
"""Arguments of a chat template, and of what calls it, that no `template_kwargs` may set."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset, before any format has seen it."""

    data: Mapping[str, Any]
    origin: str
    """Where it stands, for messages to the user: ``file:line`` for files of lines, ``source[index]`` otherwise."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a trained model answers, and what the row says in that place."""

    text: str
    """The model's answer, special tokens left out."""
    reference: str
    """The row's: the last stretch of text of it that is trained."""
    prompt: str
    """All that stands before it in the row, as the model read it."""
    origin: str
    """Where the row stands."""
    source: str = ""
    """Short name of the source it is from."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tag -> value of the row."""
    decoded: Decoded | None = None
    """The answer as a message: content, reasoning and tool calls; None where no chat template asked for it."""
    decoded_reference: Decoded | None = None
    """The row's reply as a message."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes to a tool."""

    name: str
    arguments: Mapping[str, Any] | str
    """An object, or the JSON text of one; passed to the template as the row has it."""
    id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the call as chat templates expect it: ``{"type": "function", "function": {...}}``."""
        call: dict[str, Any] = {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}
        return call if self.id is None else {"id": self.id, **call}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str | Sequence[Mapping[str, Any]] | None = None
    """A string, a list of parts (``{"type": "text", "text": …}``), or None (a turn of tool calls only).

    A part may have a ``weight``, the loss weight of its text."""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None
    weight: float | None = None
    """The loss weight that the row itself gives this turn; None when it gives none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the message as chat templates expect it: ``content`` always, other keys only if it has them."""
        message: dict[str, Any] = {"role": self.role, "content": self._content()}
        if self.reasoning_content is not None:
            message["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message

    def _content(self) -> Any:
        """Return the content without the loss weights of its parts, which are not the business of a template."""
        if self.content is None or isinstance(self.content, str):
            return self.content
        return [{key: value for key, value in part.items() if key != "weight"} for part in self.content]


@dataclass(frozen=True, slots=True)
class RowTokens:
    """Tokens that a row gives itself, of whatever made them: N of them."""

    ids: Sequence[int]
    """(N,) ids of the model's own tokenizer, as the trainer gets them."""
    trained: Sequence[bool] | None = None
    """(N,) which of them are trained; None for a row that does not say."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training example, before any template has seen it."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tool schemas in the form the template expects (OpenAI's ``{"type": "function", …}``)."""
    completion_from: int | None = None
    """Index of the first message that belongs to the completion; None when the row does not say."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """More arguments for the chat template, such as ``enable_thinking``."""
    plain: bool = False
    """True for text that no chat template renders: the contents are joined as they stand, an EOS at the end."""
    weight: float = 1.0
    """Loss weight of the whole row."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Column -> value of those by which the recipe tells rows apart, ``tags`` of the source; the core fills them in."""
    unread: tuple[str, ...] = ()
    """What the row holds and the format does not read within its columns, as ``ignore`` of a source names it:
    ``messages[].annotations``. Such keys are refused as unread columns are."""
    tokens: RowTokens | None = None
    """The tokens of a row that has no text, only these: it is `plain`, and its one message a ``document`` without
    content. Nothing is added to them."""
