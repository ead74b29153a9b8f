"""What the formats of conversations have in common: the names of roles, the tools, and the system prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftplug import Conversation, DatasetFormat, Field, Message, RowError, did_you_mean
from sftplug_formats.blocks import one_text
from sftplug_formats.calls import read_tools
from sftplug_formats.fields import kind_of, read_arguments
from sftplug_formats.recognition import answers
from sftplug_formats.roles import Role
from sftplug_formats.spelling import Unread, says_nothing
from sftplug_formats.text_calls import Notation
from sftplug_formats.turns import TurnReader


class WithTools(DatasetFormat):
    """A format of conversations in which tools may be declared and called."""

    tools: str = "tools"
    """Column that holds the tool schemas: a list, or the JSON text of one."""
    template_kwargs: str = "chat_template_kwargs"
    """Column that holds more arguments of the chat template, such as ``enable_thinking``: an object, or the JSON text
    of one. What is null in it is left out."""
    calls_in_text: Notation | None = None
    """How replies write calls of tools in their text, to be rendered as the chat template writes calls: `python` for a
    reply that is ``[weather(city="Oslo")]``, `json` for one that is ``{"name": …, "arguments": …}`` or a list of these,
    `tool_call` for ``<tool_call>{…}</tool_call>`` (and ``<tool_response>`` in what tools answer), `functioncall` for
    ``<functioncall> {…}``. Null leaves them text, which is trained as it stands; the ledger counts such rows."""
    tools_in_system: bool = False
    """Whether the JSON of tools is taken out of system prompts, and declared to the chat template, which shows it as
    the model expects it."""

    def reader(self) -> TurnReader:
        """Return what reads the turns of one row."""
        return TurnReader(calls_in_text=self.calls_in_text, tools_in_system=self.tools_in_system)

    def declared(self, row: Mapping[str, Any], reader: TurnReader) -> tuple[Mapping[str, Any], ...]:
        """Return the tools of the row: of its column, or of a system turn. Raises RowError."""
        tools = read_tools(row.get(self.tools), self.tools)
        if tools and reader.tools and tools != reader.tools:
            raise RowError(self.tools, "declares other tools than the system turn of the row: keep one of them")
        return tools or reader.tools


class WithRoles(WithTools):
    """A format whose rows name the role of each turn; see `TurnReader` for what a turn may be."""

    roles: dict[str, Role] = Field(default_factory=dict, examples=[{"bing": "assistant"}])
    """What further names of roles stand for, before all names that are known: ``{bing: assistant}``. Beside the roles
    of chat templates there are `tool_call`, a turn that is the text of a call, and `reasoning`, one that is a thought:
    both become part of the assistant's turn."""

    def reader(self) -> TurnReader:
        """Return what reads the turns of one row."""
        return TurnReader(self.roles, self.calls_in_text, self.tools_in_system)


class WithSystem(WithTools):
    """A format whose rows may hold the system prompt in a column of its own."""

    system: str = "system"
    """Column that holds the system prompt. Where a turn of the row says the same, it is said once; another one is an
    error."""

    def lead(self, row: Mapping[str, Any], said: list[Message], reader: TurnReader, column: str) -> tuple[Message, ...]:
        """Return the system turn of the column; none where the turns, which stand in `column`, hold it already.

        Raises RowError for another one.
        """
        text = _system_text(row.get(self.system), self.system, reader.unread) if self.system in row else ""
        text = reader.without_tools(text, self.system)
        if not text:
            return ()
        own = [turn.content for turn in said if turn.role in ("system", "developer")]
        if text in own:
            return ()
        if own:
            raise RowError(
                self.system,
                f"is another system prompt than that of the turns in {column}. For the turns' alone: "
                f"`system: ''` in the format, and `ignore: [{self.system}]` beside it.",
            )
        return (Message("system", text),)


class OneColumn(WithSystem):
    """A format whose rows hold all turns in one column."""

    column: str
    """Column that holds the turns."""

    def turns(self, value: Any) -> Any:
        """Return the turns that the column holds, as `TurnReader` reads them. Raises RowError."""
        return value

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the turns as messages; calls and thoughts that have turns of their own become part of the next."""
        if self.column not in row:
            raise RowError(
                self.column, f"is missing.{_instead(row, self.column)} The row has: {', '.join(map(str, row))}."
            )
        reader = self.reader()
        said = reader.read(self.turns(row[self.column]), self.column)
        before = self.lead(row, said, reader, self.column)
        return Conversation(
            (*before, *said),
            self.declared(row, reader),
            template_kwargs=read_arguments(row, self.template_kwargs),
            unread=tuple(reader.unread.found),
        )


class OneList(OneColumn, WithRoles):
    """A format whose rows hold a list of turns in one column."""


def _instead(row: Mapping[str, Any], column: str) -> str:
    """Return what may be meant where the column of turns is missing: another one, or that a row is one turn."""
    lists = [name for name, value in row.items() if isinstance(value, list | tuple) and _holds_objects(value)]
    if len(lists) == 1 and str(lists[0]).isidentifier():
        return f" In the format, `column: {lists[0]}` reads the turns there."
    if answering := answers([row]):
        return f" But {answering}: `process: message_trees` beside `path` makes conversations of them."
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
