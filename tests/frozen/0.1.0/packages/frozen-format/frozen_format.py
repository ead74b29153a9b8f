from collections.abc import Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Message, RowError, hookimpl


class FrozenFormat(DatasetFormat):
    """What user and assistant say in turn, as UltraChat has it: `{"data": ["One?", "Two."]}`."""

    type: Literal["frozen_format"] = "frozen_format"

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        said = row.get("data")
        if not isinstance(said, list) or not said or not all(isinstance(text, str) for text in said):
            raise RowError("data", "must be a list of texts, the user's first")
        return Conversation(tuple(Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said)))


@hookimpl
def sftplug_dataset_formats() -> list[type[DatasetFormat]]:
    return [FrozenFormat]
