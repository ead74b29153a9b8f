"""Repairs of conversations that a chat template refuses: asked for by name, done to every row, counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sftplug.data.convert import Example
from sftplug.errors import RowError
from sftplug.types.conversation import Conversation, Message
from sftplug.types.ledger import Account

if TYPE_CHECKING:
    from sftplug.recipe.model import SpansSection

_SYSTEM = ("system", "developer")
_MERGED = (*_SYSTEM, "user", "assistant")
"""Roles of which neighbouring turns may be one; what a tool answers belongs to its call."""
_BETWEEN = "\n\n"
"""What stands between two texts that become one."""
Repaired = tuple[Conversation, list[tuple[str, str]]]
"""A conversation, and what was done to it: kinds with sentences."""


@dataclass(frozen=True, slots=True)
class Repairs:
    """What is done to conversations before they are rendered."""

    system: Literal["keep", "into_user", "drop"] = "keep"
    merge_turns: bool = False

    @classmethod
    def of(cls, spans: SpansSection) -> Repairs:
        """Return what a recipe asks for."""
        return cls(spans.system, spans.merge_turns)

    def rows(self, examples: Iterable[Example], account: Account) -> Iterator[Example]:
        """Yield `examples`, repaired; tell `account` of each that was, and of those of which that cannot be done."""
        if self == Repairs():
            yield from examples
            return
        for example in examples:
            try:
                conversation, done = self.apply(example.conversation)
            except RowError as error:
                account.drop("bad", example.origin, str(error))
                continue
            for kind, sentence in done:
                account.note(kind, example.origin, sentence)
            yield example.saying(conversation)

    def apply(self, conversation: Conversation) -> Repaired:
        """Return a conversation repaired, and what was done. Raises RowError for a system turn that no user follows."""
        if conversation.plain:
            return conversation, []
        done: list[tuple[str, str]] = []
        if self.system != "keep" and any(message.role in _SYSTEM for message in conversation.messages):
            into = self.system == "into_user"
            conversation = _into_user(conversation) if into else _without_system(conversation)
            done.append(
                ("system turn into user", "what its system turn says stands at the head of the user's next turn")
                if into
                else ("system turn dropped", "its system turn is left out, as `spans.system` says")
            )
        if self.merge_turns:
            before = len(conversation.messages)
            conversation = _merged(conversation)
            if merged := before - len(conversation.messages):
                done.append(("turns merged", f"neighbouring turns of one role are one turn ({merged} fewer)"))
        return conversation, done


def _without_system(conversation: Conversation) -> Conversation:
    kept = [index for index, message in enumerate(conversation.messages) if message.role not in _SYSTEM]
    return _with(conversation, [conversation.messages[index] for index in kept], kept)


def _into_user(conversation: Conversation) -> Conversation:
    """Return a conversation in which the user says what the system turns before it said."""
    said: list[Message] = []
    made: list[Message] = []
    kept: list[int] = []
    for index, message in enumerate(conversation.messages):
        if message.role in _SYSTEM:
            said.append(message)
            continue
        if message.role == "user":
            for earlier in reversed(said):
                message = replace(message, content=_joined(earlier.content, message.content))
            said = []
        made.append(message)
        kept.append(index)
    if said:
        raise RowError("messages", "end in a system turn, which no user's turn follows that could say it")
    return _with(conversation, made, kept)


def _merged(conversation: Conversation) -> Conversation:
    made: list[Message] = []
    kept: list[int] = []
    for index, message in enumerate(conversation.messages):
        if made and index != conversation.completion_from and _may_merge(made[-1], message):
            made[-1] = replace(
                made[-1],
                content=_joined(made[-1].content, message.content),
                tool_calls=(*made[-1].tool_calls, *message.tool_calls),
            )
        else:
            made.append(message)
            kept.append(index)
    return _with(conversation, made, kept)


def _may_merge(first: Message, second: Message) -> bool:
    """Whether two turns can be one without anything in another order: a thought or a text after a call cannot."""
    alike = first.role == second.role and first.name == second.name and first.weight == second.weight
    in_order = second.reasoning_content is None and not (first.tool_calls and second.content)
    return alike and first.role in _MERGED and in_order


def _joined(first: Any, second: Any) -> Any:
    """Return two contents as one, a blank line between them; one that says nothing adds none."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}{_BETWEEN}{second}"
    return [*_parts(first), *_parts(_BETWEEN), *_parts(second)]


def _parts(content: str | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _with(conversation: Conversation, messages: Sequence[Message], kept: Sequence[int]) -> Conversation:
    """Return a conversation with other messages, of which the indices before are `kept`."""
    start = conversation.completion_from
    moved = None if start is None else sum(index < start for index in kept)
    return replace(conversation, messages=tuple(messages), completion_from=moved)
