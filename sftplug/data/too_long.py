"""Rows that are certainly too long, told before they are rendered.

A token stands for so many bytes of text at most, and what users, the assistant and tools say is in the text of a row
whatever the template (one that leaves it out is refused), but for white space and thoughts. So a row whose messages
alone are more bytes than `max_length` tokens can stand for is too long. Only where the policy never keeps a part of a
row is that all there is to know of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import normalize

from sftplug.data.convert import Example
from sftplug.data.engine import Encoders
from sftplug.data.row_warnings import trained_roles
from sftplug.plugin.components import Masking
from sftplug.types.conversation import Conversation, Message
from sftplug.types.ledger import Account

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe

SAMPLED = 100_000
"""So many characters of a text are tokenized to tell about how many tokens it has."""
_SURE = frozenset({"user", "assistant", "tool", "document"})
"""Roles whose texts no template leaves out without being refused; system turns are shown in some prompts only."""


@dataclass(frozen=True, slots=True)
class Early:
    """Leaves out rows of one source that are certainly too long."""

    engines: Encoders
    recipe: Recipe
    trained: frozenset[str]
    """Roles of which tokens may be trained."""

    @classmethod
    def of(cls, engines: Encoders, recipe: Recipe, maskings: Sequence[Sequence[Masking]]) -> Early | None:
        """Return what leaves rows out; None where every row has to be rendered."""
        data = recipe.data
        whole = data.max_length is not None and not data.too_long.shortens
        # A row may be bad for a control token in it, and only its tokens show that.
        if not whole or data.special_tokens_in_content == "error":
            return None
        return cls(engines, recipe, trained_roles(maskings))

    def rest(self, examples: Iterable[Example], account: Account) -> Iterator[Example]:
        """Yield the examples that are not certainly too long; tell `account` of the others."""
        limit = self.recipe.data.max_length or 0
        for example in examples:
            # Nearly every row is done with here, by what it costs to add up a few numbers. It may be too long as well,
            # which its tokens will tell.
            if _characters(example) <= 8 * limit:
                yield example
                continue
            said = self._certain(example.conversation)
            if self._sure(said) > limit and self._trains(example.conversation):
                self._leave_out(example, self._sure(said), account)
            else:
                yield example

    def _certain(self, conversation: Conversation) -> list[str]:
        """Return the texts that every row that this one becomes has in it."""
        messages = conversation.messages
        turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
        # A turn that inference shows differently is a row of its own, with what stands before it.
        if len(turns) > 1 and self.recipe.spans.on_divergence == "split" and not conversation.plain:
            messages = messages[: turns[0] + 1]
        return [text for message in messages if message.role in _SURE for text in _texts(message)]

    def _sure(self, texts: Iterable[str]) -> int:
        """Return how many tokens the texts have at least; 0 where nobody knows what a token can stand for."""
        widest = self.engines.widest
        return sum(_shown_bytes(text) for text in texts) // widest if widest else 0

    def _trains(self, conversation: Conversation) -> bool:
        return any(message.role in self.trained for message in conversation.messages)

    def _leave_out(self, example: Example, least: int, account: Account) -> None:
        """Account for the row as one that is too long; what it would have trained is an estimate."""
        conversation = example.conversation
        spoken = [message for message in conversation.messages if message.role in self.trained]
        tokens = sum(1 + self._about(text) for message in spoken for text in _texts(message))
        account.lost += conversation.weight * tokens
        account.unmeasured += 1
        account.documents += conversation.messages[0].role == "document"
        reason = f"at least {least} tokens, {self.recipe.data.max_length} allowed: left out before it is rendered"
        account.drop("too long", example.origin, reason)

    def _about(self, text: str) -> float:
        sample = text[:SAMPLED]
        (ids,) = self.engines.slow.ids([sample])
        return len(ids) * len(text) / max(len(sample), 1)


def _characters(example: Example) -> int:
    """Return how many characters the messages hold, but for their thoughts."""
    messages = example.conversation.messages
    if example.texts is not None:  # as in most rows: a text each
        return sum([len(message.content or "") for message in messages])
    return sum(len(text) for message in messages for text in _texts(message))


def _texts(message: Message) -> Iterator[str]:
    content = message.content
    if isinstance(content, str):
        yield content
    else:
        yield from (str(part["text"]) for part in content or () if part.get("type") == "text")


def _shown_bytes(text: str) -> int:
    """Return the bytes of a text that are neither white space nor of a thought, composed or not."""
    shown = "".join(text.rpartition("</think>")[2].split())
    return len(shown) if shown.isascii() else min(len(shown.encode()), len(normalize("NFC", shown).encode()))
