"""Strategies that modify: their weight is 1 everywhere but on the tokens they speak of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from sftplug import Conversation, Field, Masking, Pattern, TokenBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Weights = NDArray[np.floating[Any]]

_EMPTY_THINK = re.compile(r"<think>\s*</think>\s*")


class Reasoning(Masking):
    """Say whether reasoning is trained."""

    selects = False
    type: Literal["reasoning"] = "reasoning"
    mode: Literal["train", "mask"] = "mask"
    """``mask`` leaves the reasoning, its tags included, out of the loss."""
    shorthand: ClassVar[str] = "mode"

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return false on reasoning, if it is masked."""
        kept: Mask = (tokens.part != tokens.part_code("reasoning")) | (self.mode == "train")
        return kept


class EmptyThink(Masking):
    """Say whether an empty think block (``<think>`` with nothing in it) is trained."""

    selects = False
    type: Literal["empty_think"] = "empty_think"
    mode: Literal["train", "mask"] = "mask"
    """``mask`` leaves empty think blocks, the white space after them included, out of the loss."""
    shorthand: ClassVar[str] = "mode"

    @property
    def reads_turns(self) -> bool:
        """It looks at the text alone."""
        return False

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return false on empty think blocks, if they are masked."""
        found = tokens.matching(_EMPTY_THINK)
        return ~found | (self.mode == "train")


class ToolCalls(Masking):
    """Weigh the calls that the assistant makes to tools."""

    selects = False
    type: Literal["tool_calls"] = "tool_calls"
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Loss weight of a tool call's tokens."""
    shorthand: ClassVar[str] = "weight"

    def weights(self, tokens: TokenBatch) -> Weights:
        """Return the weight on tool calls, 1 elsewhere."""
        weights: Weights = 1 + (tokens.part == tokens.part_code("tool_call")) * (self.weight - 1)
        return weights


class EndOfTurn(Masking):
    """Say whether the token that ends a turn is trained."""

    selects = False
    type: Literal["end_of_turn"] = "end_of_turn"
    mode: Literal["train", "mask"] = "train"
    """``mask`` leaves the stop out of the loss: the model does not learn to end its turn."""
    shorthand: ClassVar[str] = "mode"

    def weights(self, tokens: TokenBatch) -> Mask:
        """Return false on the ends of turns, if they are masked."""
        kept: Mask = (tokens.part != tokens.part_code("end_of_turn")) | (self.mode == "train")
        return kept


class Regex(Masking):
    """Weigh the tokens that a regular expression matches."""

    selects = False
    type: Literal["regex"] = "regex"
    pattern: str = Field(examples=["I am an AI[^.]*\\."])
    """Regular expression, as Python's `re` reads it, searched in the rendered text of each row for a second at most."""
    weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Loss weight of the tokens it matches."""
    role: Literal["system", "developer", "user", "assistant", "tool", "document"] | None = "assistant"
    """Only tokens of this role's turns; null for any."""
    shorthand: ClassVar[str] = "pattern"

    @property
    def reads_turns(self) -> bool:
        """With a role it looks for tokens of that role."""
        return self.role is not None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return Pattern(value).text

    def weights(self, tokens: TokenBatch) -> Weights:
        """Return the weight on matched tokens, 1 elsewhere."""
        found = tokens.matching(Pattern(self.pattern))
        if self.role is not None:
            found = found & (tokens.role == tokens.role_code(self.role))
        return 1 + found * (self.weight - 1)


class MessageWeights(Masking):
    """Weigh each message as its row says: `train: false` or `weight: 0.5` on a message, a content part or the row."""

    selects = False
    reads_weights = True
    type: Literal["message_weights"] = "message_weights"

    @property
    def reads_turns(self) -> bool:
        """A row that comes as tokens may have a weight of its own, too."""
        return False

    def weights(self, tokens: TokenBatch) -> Weights:
        """Return the weight of each token's row, message and content part, multiplied; 1 where the row says nothing."""
        weights = tokens.per_message(_weights)
        for row, conversation in enumerate(tokens.conversations):
            for index, part, weight in _weighted_parts(conversation):
                weights[(tokens.row == row) & (tokens.message == index) & (tokens.content_part == part)] *= weight
        return weights


def _weights(conversation: Conversation) -> list[float]:
    return [conversation.weight * (1.0 if m.weight is None else m.weight) for m in conversation.messages]


def _weighted_parts(conversation: Conversation) -> Iterator[tuple[int, int, float]]:
    """Yield message, part and weight of every content part that has one."""
    for index, message in enumerate(conversation.messages):
        if message.content is not None and not isinstance(message.content, str):
            for number, part in enumerate(message.content):
                if "weight" in part:
                    yield index, number, float(part["weight"])
