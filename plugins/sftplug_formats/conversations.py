"""What the formats of conversations have in common: the names of roles, the tools, and the system prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftplug import Conversation, DatasetFormat, Field, Message, RowError, did_you_mean
from sftplug_formats.blocks import one_text
from sftplug_formats.calls import read_tools
from sftplug_formats.fields import kind_of, read_arguments
from sftplug_formats.roles import Role
from sftplug_formats.spelling import Unread, says_nothing
from sftplug_formats.turns import TurnReader


class WithTurns(DatasetFormat):
    """A format whose rows hold turns; see `TurnReader` for what a turn may be."""

    roles: dict[str, Role] = Field(default_factory=dict, examples=[{"bing": "assistant"}])
    """What further names of roles stand for, before all names that are known: ``{bing: assistant}``. Beside the roles
    of chat templates there are `tool_call`, a turn that is the text of a call, and `reasoning`, one that is a thought:
    both become part of the assistant's turn."""
    tools: str = "tools"
    """Column that holds the tool schemas: a list, or the JSON text of one."""
    template_kwargs: str = "chat_template_kwargs"
    """Column that holds more arguments of the chat template, such as ``enable_thinking``: an object, or the JSON text
    of one. What is null in it is left out."""

    def reader(self) -> TurnReader:
        """Return what reads the turns of one row."""
        return TurnReader(self.roles)

    def declared(self, row: Mapping[str, Any], reader: TurnReader) -> tuple[Mapping[str, Any], ...]:
        """Return the tools of the row: of its column, or of a system turn. Raises RowError."""
        tools = read_tools(row.get(self.tools), self.tools)
        if tools and reader.tools and tools != reader.tools:
            raise RowError(self.tools, "declares other tools than the system turn of the row: keep one of them")
        return tools or reader.tools


class OneList(WithTurns):
    """A format whose rows hold all turns in one column."""

    column: str
    """Column that holds the list of turns."""
    system: str = "system"
    """Column that holds the system prompt. Where a turn of the row says the same, it is said once; another one is an
    error."""

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the turns as messages; calls and thoughts that have turns of their own become part of the next."""
        if self.column not in row:
            raise RowError(
                self.column, f"is missing.{_instead(row, self.column)} The row has: {', '.join(map(str, row))}."
            )
        reader = self.reader()
        said = reader.read(row[self.column], self.column)
        before = self._system(row, said, reader.unread)
        return Conversation(
            (*before, *said),
            self.declared(row, reader),
            template_kwargs=read_arguments(row, self.template_kwargs),
            unread=tuple(reader.unread.found),
        )

    def _system(self, row: Mapping[str, Any], said: list[Message], unread: Unread) -> tuple[Message, ...]:
        """Return the system turn of the column; none where the turns hold it already."""
        text = _system_text(row.get(self.system), self.system, unread) if self.system in row else ""
        if not text:
            return ()
        own = [turn.content for turn in said if turn.role in ("system", "developer")]
        if text in own:
            return ()
        if own:
            raise RowError(
                self.system,
                f"is another system prompt than that of the turns in {self.column}. For the turns' alone: "
                f"`system: ''` in the format, and `ignore: [{self.system}]` beside it.",
            )
        return (Message("system", text),)


def _instead(row: Mapping[str, Any], column: str) -> str:
    """Return what may be meant where the column of turns is missing: another one, or that a row is one turn."""
    lists = [name for name, value in row.items() if isinstance(value, list | tuple) and _holds_objects(value)]
    if len(lists) == 1 and str(lists[0]).isidentifier():
        return f" In the format, `column: {lists[0]}` reads the turns there."
    if {"role", "from"} & row.keys():
        return " A row seems to be one message, and this format needs all of a conversation's in a row."
    return did_you_mean(column, [name for name, value in row.items() if isinstance(value, list | tuple)])


def _holds_objects(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(item, Mapping) for item in value)


def _system_text(value: Any, column: str, unread: Unread) -> str:
    """Return a system prompt: text, parts of text, or Gemini's object of these. Raises RowError."""
    where = column
    if isinstance(value, Mapping):
        unread.note(value, ("role", "parts", "content"), where)
        key = "parts" if "parts" in value else "content"
        value, where = value.get(key), f"{column}.{key}"
    if says_nothing(value):
        return ""
    if not isinstance(value, str | list | tuple):
        raise RowError(where, f"must be text, not {kind_of(value)}")
    return one_text(value, where, unread, "\n")
