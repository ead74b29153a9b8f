"""Conversations as the OpenAI chat format writes them."""

from __future__ import annotations

from typing import Literal

from sftplug import Recognized
from sftplug_formats.conversations import OneList
from sftplug_formats.recognition import Rows, turns


class Messages(OneList):
    """A list of messages with `role` and `content`, tool calls and reasoning too (the OpenAI chat format).

    Every spelling that people use is read: `from` and `value`, `function_call`, Anthropic's blocks, Gemini's parts, the
    items of the Responses API, turns of roles such as `tool_call`. A message may carry `train: false`, `loss: false` or
    a `weight`, which the masking `message_weights` reads.
    """

    type: Literal["messages"] = "messages"
    column: str = "messages"
    """Column that holds the list of messages."""

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a column of messages, whatever its name is."""
        return turns(rows, "messages", "role", "messages with `role`")
