from collections.abc import Sequence
from typing import Literal

from sftplug import Conversation, Field, LengthPolicy, LongRow, hookimpl


class FrozenLength(LengthPolicy):
    """Keep the beginning of a conversation: as many of its messages as are asked for."""

    type: Literal["frozen_length"] = "frozen_length"
    messages: int = Field(2, gt=0)
    """How many messages are kept."""

    def shorten(self, row: LongRow) -> Sequence[Conversation]:
        kept = Conversation(row.conversation.messages[: self.messages])
        return [kept] if len(row.conversation.messages) > self.messages else []


@hookimpl
def sftplug_length_policies() -> list[type[LengthPolicy]]:
    return [FrozenLength]
