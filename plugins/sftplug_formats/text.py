"""Text that is not a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Message, RowError
from sftplug_formats.fields import kind_of, read_tools, required_text
from sftplug_formats.messages import read_messages


class Text(DatasetFormat):
    """Plain text, for pretraining: no chat template renders it. Goes with `masking: all`."""

    type: Literal["text"] = "text"
    column: str = "text"
    """Column that holds the text."""

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the text as a document."""
        return Conversation((Message("document", required_text(row, self.column)),), plain=True)


class PromptCompletion(DatasetFormat):
    """A prompt and its completion: two strings that are joined as they stand, or two lists of messages."""

    type: Literal["prompt_completion"] = "prompt_completion"
    prompt: str = "prompt"
    """Column that holds the prompt."""
    completion: str = "completion"
    """Column that holds the completion."""
    tools: str = "tools"
    """Column that holds tool schemas, where the row has any."""

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the prompt as the user's text and the completion as the assistant's, or the messages of both."""
        if not isinstance(row.get(self.prompt), list):
            prompt, completion = required_text(row, self.prompt), required_text(row, self.completion)
            return Conversation(
                (Message("user", prompt), Message("assistant", completion)), completion_from=1, plain=True
            )
        if not isinstance(row.get(self.completion), list):
            reason = f"must be a list of messages, as the prompt is, not {kind_of(row.get(self.completion))}"
            raise RowError(self.completion, reason)
        before = read_messages(row[self.prompt], self.prompt)
        after = read_messages(row[self.completion], self.completion)
        return Conversation((*before, *after), read_tools(row, self.tools), completion_from=len(before))
