"""What a row says that the run does not use, and replies that are probably missing: said in the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sftplug.data.calls_as_text import calls_as_text
from sftplug.data.convert import Example
from sftplug.data.noted import once, remarks
from sftplug.plugin.calls import trains
from sftplug.plugin.components import DatasetFormat, Masking
from sftplug.types.conversation import Conversation, Message
from sftplug.types.ledger import Account

UNUSED_WEIGHT = "weight not used"
EMPTY_REPLY = "empty reply"
PLACEHOLDER = "unfilled placeholder"
LAID_OUT = "control token in plain text"

_NAMED = re.compile(r"(?<![A-Za-z0-9_\\${}^])\{\{ ?([A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)*) ?\}\}(?!\})")
"""What a placeholder looks like: a name in double braces, ``{{name}}``. Not ``${{ name }}``, which is a workflow's, and
not what TeX writes, ``x_{{max}}``."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
"""What an answer shows as code: a template in it is what was asked for."""


@dataclass(frozen=True, slots=True)
class Remarks:
    """Looks at each conversation of a source before it is rendered."""

    uses_weights: bool
    """Whether a masking strategy reads the weights that rows give."""
    trained: frozenset[str]
    """Roles of which tokens may be trained."""
    reads_calls: bool
    """Whether the format has an option that makes calls of what is text."""

    @classmethod
    def of(cls, maskings: Sequence[Sequence[Masking]], format: DatasetFormat) -> Remarks:
        """Return what there is to look out for with these strategies, and in rows of this format."""
        reads = any(part.reads_weights for union in maskings for part in union)
        return cls(reads, trained_roles(maskings), "calls_in_text" in type(format).model_fields)

    def note(self, example: Example, account: Account) -> Example:
        """Tell `account` what there is to say of a row, and return the row."""
        if example.texts is not None:
            return example
        conversation = example.conversation
        said = () if conversation.plain else calls_as_text(conversation, self.reads_calls)
        for kind, text in once(chain(remarks(conversation), said)):
            account.note(kind, example.origin, text)
        if not self.uses_weights and (unused := next(self._unused(conversation), "")):
            account.note(UNUSED_WEIGHT, example.origin, f"{unused}, which no masking strategy reads")
        if empty := [index for index, message in enumerate(conversation.messages) if _is_empty_reply(message)]:
            where = ", ".join(f"messages[{index}]" for index in empty)
            account.note(EMPTY_REPLY, example.origin, f"{where} says nothing: all that it teaches is to stop at once")
        named = (name for message in conversation.messages for name in placeholders(message))
        if names := list(dict.fromkeys(named)):
            told = [_unfilled(text) for text in names]
            account.note(PLACEHOLDER, example.origin, " ".join(told), [("", sentence) for sentence in told])
        return example

    def _unused(self, conversation: Conversation) -> Iterator[str]:
        """Yield what the row says about its loss and nobody reads; a weight of 1 changes nothing."""
        if conversation.weight != 1:
            yield f"the row has the weight {conversation.weight:g}"
        for index, message in enumerate(conversation.messages):
            if message.role in self.trained:
                if message.weight not in (None, 1):
                    yield f"messages[{index}] has the weight {message.weight:g}"
                yield from _weighted_parts(f"messages[{index}].content", message.content)


def _unfilled(text: str) -> str:
    return f'{text} is left as it stands; `replace: {{"{text}": TEXT}}` beside the format fills it in.'


def placeholders(message: Message) -> Iterator[str]:
    """Yield the placeholders in what a message says, as they are written there: ``{{name}}``, ``{{ name }}``."""
    content = message.content
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
    for text in (*texts, message.reasoning_content):
        if isinstance(text, str) and "{{" in text:
            yield from (match[0] for match in _NAMED.finditer(_CODE.sub("", text)) if len(match[1]) > 1)


def _weighted_parts(where: str, content: Any) -> Iterator[str]:
    for index, part in enumerate(() if content is None or isinstance(content, str) else content):
        if part.get("weight", 1) != 1:
            yield f"{where}[{index}] has the weight {part['weight']:g}"


def _is_empty_reply(message: Message) -> bool:
    if message.role != "assistant" or message.tool_calls or message.reasoning_content:
        return False
    if message.content is None or isinstance(message.content, str):
        return not (message.content or "").strip()
    return all(part.get("type") == "text" and not part["text"].strip() for part in message.content)


def trained_roles(maskings: Sequence[Sequence[Masking]]) -> frozenset[str]:
    """Return the roles of which tokens may be trained with these strategies."""
    return frozenset({"assistant"}.union(*(trains(masking) for union in maskings for masking in union)))
