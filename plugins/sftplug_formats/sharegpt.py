"""Conversations as ShareGPT wrote them."""

from __future__ import annotations

from typing import Literal

from sftplug_formats.conversations import OneList


class ShareGPT(OneList):
    """Turns with `from` and `value`: human, gpt, system, function_call, observation, tool.

    Turns are read as `messages` reads them, with the same keys, roles and spellings. A turn may carry `train: false`,
    `loss: false` or a `weight`, which the masking `message_weights` reads.
    """

    type: Literal["sharegpt"] = "sharegpt"
    column: str = "conversations"
    """Column that holds the list of turns."""
