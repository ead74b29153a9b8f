"""Conversations as ShareGPT wrote them."""

from __future__ import annotations

from typing import Literal

from sftplug import Recognized
from sftplug_formats.conversations import OneList
from sftplug_formats.recognition import Rows, turns


class ShareGPT(OneList):
    """Turns with `from` and `value`: human, gpt, system, function_call, observation, tool.

    Turns are read as `messages` reads them, with the same keys, roles and spellings. A turn may carry `train: false`,
    `loss: false` or a `weight`, which the masking `message_weights` reads.
    """

    type: Literal["sharegpt"] = "sharegpt"
    column: str = "conversations"
    """Column that holds the list of turns."""

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a column of turns, whatever its name is."""
        return turns(rows, "conversations", "from", "turns with `from`")
