"""Text that is not a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Field, Message, Recognized, RowError
from sftplug_formats.conversations import WithRoles, WithSystem
from sftplug_formats.fields import kind_of, read_arguments, required_text
from sftplug_formats.recognition import Rows, columns, has_text, lacking, listed_turns, most, preferred, prompts
from sftplug_formats.transcript import transcripts


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
        if transcripts(rows, "text") is not None:
            return "`text` holds transcripts, turns with a marker before each"
        return Recognized("column text")


class PromptCompletion(WithSystem, WithRoles):
    """A prompt and its completion: two strings, two lists of messages, or a list and the text of the reply.

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
        """Take rows with `prompt` and `completion`, two texts or two lists; and a list with the text of its reply."""
        if all(most(rows, name, lambda value: listed_turns(value) is not None) for name in ("prompt", "completion")):
            return Recognized("columns prompt and completion, of messages", _system(rows))
        for prompt, completion in prompts(rows):
            named = {"prompt": prompt, "completion": completion}
            options = {name: column for name, column in named.items() if name != column}
            return Recognized(f"columns {prompt} and {completion}, messages and their reply", options | _system(rows))
        if kind := preferred(rows):
            by = f"columns prompt and chosen, {kind}, what was preferred"
            return Recognized(by, {"completion": "chosen"} | _system(rows))
        if has_text(rows, "prompt", "completion"):
            return Recognized("columns prompt and completion, of text")
        return "no text, and no messages, in both `prompt` and `completion`"

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the prompt as the user's text and the completion as the assistant's, or the messages of both."""
        are_texts = all(listed_turns(row.get(column)) is None for column in (self.prompt, self.completion))
        if are_texts and self.as_ != "chat":
            return self._of_strings(row)
        if self.as_ == "text":
            raise RowError(self.prompt, "is a list of messages, which a chat template renders. Leave `as: text` out.")
        reader = self.reader()
        before = reader.read(self._turns(row, self.prompt, "user"), self.prompt)
        after = reader.read(self._turns(row, self.completion, "assistant"), self.completion)
        before = [*self.lead(row, before, reader, self.prompt), *before]
        conversation = Conversation((*before, *after), self.declared(row, reader), completion_from=len(before))
        arguments, unread = read_arguments(row, self.template_kwargs), tuple(reader.unread.found)
        return replace(conversation, template_kwargs=arguments, unread=unread)

    def _turns(self, row: Mapping[str, Any], column: str, role: str) -> Any:
        """Return the messages in a column; a text is one of `role`. Raises RowError for anything else."""
        if (turns := listed_turns(row.get(column))) is not None:
            return turns
        if isinstance(row.get(column), Mapping):
            return [row[column]]
        if column == self.completion and column in row and not isinstance(row[column], str):
            reason = f"must be text, or a list of messages, not {kind_of(row[column])}"
            raise RowError(column, reason)
        return [{"role": role, "content": required_text(row, column)}]

    def _of_strings(self, row: Mapping[str, Any]) -> Conversation:
        if self.calls_in_text is not None:
            raise RowError(
                self.completion,
                "is plain text, which no chat template renders, so `calls_in_text` makes no calls of it. Say "
                "`as: chat` in the format, or leave `calls_in_text` out",
            )
        prompt, completion = required_text(row, self.prompt), required_text(row, self.completion)
        return Conversation((Message("user", prompt), Message("assistant", completion)), completion_from=1, plain=True)


def _system(rows: Rows) -> dict[str, str]:
    """Return the option that reads a column of system prompts."""
    return {"system": "system_prompt"} if has_text(rows, "system_prompt") and "system" not in columns(rows) else {}
