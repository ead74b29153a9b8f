"""Text that is not a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Field, Message, Recognized, RowError
from sftplug_formats.calls import read_tools
from sftplug_formats.conversations import WithTurns
from sftplug_formats.fields import kind_of, read_arguments, required_text
from sftplug_formats.recognition import Rows, columns, has_text, is_text, lacking, most


class Text(DatasetFormat):
    """Plain text: no chat template renders it, so it may be laid out by one already. Goes with `masking: all`.

    Control tokens in it control. It begins with the tokenizer's BOS and ends in its EOS, or in its own.
    """

    type: Literal["text"] = "text"
    column: str = "text"
    """Column that holds the text."""

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the text as a document."""
        return Conversation((Message("document", required_text(row, self.column)),), plain=True)

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a column `text`, unless a row is one message among others."""
        if not has_text(rows, "text"):
            return lacking(rows, "text")
        if of_messages := sorted({"role", "parent_id"} & {*columns(rows)}):
            return f"`text` stands beside `{of_messages[0]}`, so a row seems to be one message of a conversation"
        return Recognized("column text")


class PromptCompletion(WithTurns):
    """A prompt and its completion: two strings, or two lists of messages.

    Strings are joined as they stand, as text that may be laid out by a chat template already: control tokens in them
    control, and what ends in a stop of its own gets no other. ``as: chat`` makes a turn of the user and one of the
    assistant of them.
    """

    type: Literal["prompt_completion"] = "prompt_completion"
    prompt: str = "prompt"
    """Column that holds the prompt."""
    completion: str = "completion"
    """Column that holds the completion."""
    as_: Literal["chat", "text"] | None = Field(None, alias="as")
    """What strings are: turns that the chat template renders, or text that is joined as it stands. Null joins them too,
    and `sftplug check` says so."""

    @property
    def undecided(self) -> str | None:
        """Strings may be meant as turns."""
        return "as: chat" if self.as_ is None else None

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with `prompt` and `completion`, two texts or two lists."""
        if all(most(rows, name, lambda value: isinstance(value, list)) for name in ("prompt", "completion")):
            return Recognized("columns prompt and completion, of messages")
        if all(most(rows, name, is_text) for name in ("prompt", "completion")):
            return Recognized("columns prompt and completion, of text")
        return "no text, and no messages, in both `prompt` and `completion`"

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the prompt as the user's text and the completion as the assistant's, or the messages of both."""
        if not isinstance(row.get(self.prompt), list):
            return self._of_strings(row)
        if self.as_ == "text":
            raise RowError(self.prompt, "is a list of messages, which a chat template renders. Leave `as: text` out.")
        if not isinstance(row.get(self.completion), list):
            reason = f"must be a list of messages, as the prompt is, not {kind_of(row.get(self.completion))}"
            raise RowError(self.completion, reason)
        reader = self.reader()
        before = reader.read(row[self.prompt], self.prompt)
        after = reader.read(row[self.completion], self.completion)
        conversation = Conversation((*before, *after), self.declared(row, reader), completion_from=len(before))
        arguments, unread = read_arguments(row, self.template_kwargs), tuple(reader.unread.found)
        return replace(conversation, template_kwargs=arguments, unread=unread)

    def _of_strings(self, row: Mapping[str, Any]) -> Conversation:
        prompt, completion = required_text(row, self.prompt), required_text(row, self.completion)
        turns = (Message("user", prompt), Message("assistant", completion))
        if self.as_ == "chat":
            tools, arguments = read_tools(row.get(self.tools), self.tools), read_arguments(row, self.template_kwargs)
            return Conversation(turns, tools, completion_from=1, template_kwargs=arguments)
        return Conversation(turns, completion_from=1, plain=True)
