"""Strategies that select tokens: their weights are true or false."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import ROLE_CODES, Field, Masking, TokenBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sftplug import Conversation

    Mask = NDArray[np.bool_]


class All(Masking):
    """Train every token, as pretraining does."""

    type: Literal["all"] = "all"

    @property
    def reads_turns(self) -> bool:
        """Every token is trained, whoever wrote it."""
        return False

    @property
    def trains(self) -> frozenset[str]:
        """Everyone's words, and the template's own."""
        return frozenset(ROLE_CODES)

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return true everywhere."""
        return tokens.row >= 0


class Assistant(Masking):
    """Train what the assistant says and the token that ends its turn; nothing else."""

    type: Literal["assistant"] = "assistant"

    @property
    def reads_turns(self) -> bool:
        """Rows that come as tokens say themselves what the assistant must produce."""
        return False

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return true in the trained spans."""
        return tokens.trainable


class Completion(Masking):
    """Train the completion: what the row says it is, else the assistant's turns after the last user message."""

    type: Literal["completion"] = "completion"

    @property
    def reads_turns(self) -> bool:
        """Of rows that come as tokens, the completion is what they train."""
        return False

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return true in the trained spans of the completion."""
        return tokens.trainable & (tokens.message >= tokens.per_row(_completion_from))


def _completion_from(conversation: Conversation) -> int:
    if conversation.completion_from is not None:
        return conversation.completion_from
    users = [index for index, message in enumerate(conversation.messages) if message.role == "user"]
    return users[-1] + 1 if users else 0


class LastAssistant(Masking):
    """Train the last assistant turn alone."""

    type: Literal["last_assistant"] = "last_assistant"

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return true in the trained spans of the last assistant message."""
        last: Mask = tokens.message == tokens.per_row(_last_assistant)
        return tokens.trainable & last


def _last_assistant(conversation: Conversation) -> int:
    turns = [index for index, message in enumerate(conversation.messages) if message.role == "assistant"]
    # Not -1, which is that of text of no message.
    return turns[-1] if turns else -2


class Turns(Masking):
    """Train the last so many assistant turns."""

    type: Literal["turns"] = "turns"
    last: int = Field(1, gt=0)
    """How many assistant turns, counted from the end."""
    shorthand: ClassVar[str] = "last"

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return true in the trained spans of the last `last` assistant messages."""
        return tokens.trainable & (tokens.message >= tokens.per_row(self._first))

    def _first(self, conversation: Conversation) -> int:
        turns = [index for index, message in enumerate(conversation.messages) if message.role == "assistant"]
        # Without a turn of the assistant it is beyond all messages: nothing is trained.
        return (turns[-self.last :] or [len(conversation.messages)])[0]


class Roles(Masking):
    """Train the turns of the named roles: of the assistant what it must produce, of others what they say."""

    type: Literal["roles"] = "roles"
    roles: list[Literal["system", "developer", "user", "assistant", "tool", "document"]] = Field(min_length=1)
    """The roles whose turns are trained."""
    shorthand: ClassVar[str] = "roles"

    @property
    def trains(self) -> frozenset[str]:
        """The roles."""
        return frozenset(self.roles) - {"assistant"}

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return true in the turns of the roles."""
        # What others say is their own words; headers and ends of turns are the template's.
        words = (tokens.part != tokens.part_code("header")) & (tokens.part != tokens.part_code("end_of_turn"))
        chosen: Mask = tokens.row < 0
        for role in self.roles:
            said = tokens.trainable if role == "assistant" else words
            chosen = chosen | ((tokens.role == tokens.role_code(role)) & said)
        return chosen
