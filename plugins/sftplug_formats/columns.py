"""Any table: the recipe says which column, or which text with columns in it, is whose turn."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from sftplug import Conversation, DatasetFormat, Field, Message, Recognized, RowError, ToolCall, did_you_mean
from sftplug_formats.calls import read_calls, read_tools
from sftplug_formats.recognition import Rows, columns, has_text, is_said, most, turn_columns
from sftplug_formats.spelling import Unread, says_nothing

_PAIRS = (
    ("question", "answer"),
    ("question", "response"),
    ("question", "solution"),
    ("query", "response"),
    ("query", "answer"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("problem", "solution"),
    ("problem", "generated_solution"),
    ("input", "output"),
    ("inputs", "targets"),
    ("input", "target"),
    ("user", "assistant"),
)
"""Columns of a question and its reply as data sets name them: GSM8K, OpenOrca, MetaMath, HelpSteer, NuminaMath, FLAN,
Firefly."""
_SYSTEM = ("system", "system_prompt")


class Columns(DatasetFormat):
    """Any table. Each turn is a column's name, or a text with `{column}` in it: `user: "Translate: {english}"`."""

    type: Literal["columns"] = "columns"
    system: str | None = None
    """The system prompt."""
    user: str = Field(examples=["question"])
    """The question."""
    assistant: str | None = Field(None, examples=["answer"])
    """The reply."""
    reasoning: str | None = Field(None, examples=["rationale"])
    """What the assistant thinks before it replies."""
    calls: str | None = None
    """Column that holds the calls of tools that the reply makes, as a list or its JSON text: ``[{"name": …,
    "arguments": …}]``. Instead of `assistant`, or after what it says."""
    tools: str = "tools"
    """Column that holds the tool schemas, where the table has any: a list, or the JSON text of one."""

    @field_validator("system", "user", "assistant", "reasoning")
    @classmethod
    def _well_formed(cls, value: str | None) -> str | None:
        if value is not None:
            list(_fields(value))
        return value

    @model_validator(mode="after")
    def _replies(self) -> Self:
        if self.assistant is None and self.calls is None:
            raise ValueError("needs `assistant`, the reply, or `calls`, the calls that it makes.")
        return self

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a question and its reply in two columns of well-known names, and no turns elsewhere."""
        if turn := next(turn_columns(rows), None):
            return f"`{turn}` holds turns"
        if has_text(rows, "instruction"):
            return "`instruction` is a question by itself, or with others"
        if has_text(rows, "query") and most(rows, "answers", _holds_calls) and "tools" in columns(rows):
            return Recognized("columns query, answers of calls, tools", {"user": "query", "calls": "answers"})
        found = [(user, reply) for user, reply in _PAIRS if has_text(rows, user) and most(rows, reply, is_said)]
        way = "Say whose turn each column is: `format: {type: columns, user: COLUMN, assistant: COLUMN}`"
        if not found:
            return f"no two columns have names that say which is the question. {way}"
        if len(found) > 1:
            pairs = " or ".join(f"`{user}` and `{assistant}`" for user, assistant in found)
            return f"question and reply may be {pairs}. {way}"
        ((user, assistant),) = found
        system = [name for name in _SYSTEM if has_text(rows, name)]
        said = {"system": system[0]} if len(system) == 1 else {}
        return Recognized(
            f"columns {', '.join([*said.values(), user, assistant])}", {**said, "user": user, "assistant": assistant}
        )

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the turns, filled in from the row."""
        before = [Message("system", _fill(self.system, row, "system"))] if self.system is not None else []
        before.append(Message("user", _fill(self.user, row, "user")))
        unread = Unread()
        thought = None if self.reasoning is None else _fill(self.reasoning, row, "reasoning")
        reply = Message("assistant", *self._reply(row, unread), reasoning_content=thought or None)
        tools = read_tools(row.get(self.tools), self.tools)
        if tools and not reply.tool_calls:
            self._refuse_calls_as_text(row)
        return Conversation((*before, reply), tools, completion_from=len(before), unread=tuple(unread.found))

    def _refuse_calls_as_text(self, row: Mapping[str, Any]) -> None:
        """Raise RowError where the column of replies holds calls of tools, and would be trained as it is written."""
        if self.assistant is not None and self.assistant in row and _are_calls(str(row[self.assistant])):
            raise RowError(
                self.assistant,
                "holds calls of tools, and would be trained as plain text, not as the chat template writes calls. "
                f"In the format, say `calls: {self.assistant}`, and leave `assistant` out",
            )

    def _reply(self, row: Mapping[str, Any], unread: Unread) -> tuple[str | None, tuple[ToolCall, ...]]:
        """Return what the reply says, and the calls that it makes."""
        text = None if self.assistant is None else _fill(self.assistant, row, "assistant")
        if self.calls is None:
            return text, ()
        value = _known(row, self.calls, "calls")
        calls = () if says_nothing(value) else read_calls(value, self.calls, unread)
        if text is None and not calls:
            raise RowError(self.calls, "holds no call, and there is no `assistant` column with another reply")
        return text, calls


def _fields(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield (literal, column or None) for the pieces of `text`; doubled braces are literal."""
    for literal, name, form, conversion in string.Formatter().parse(text):
        if name == "" or form or conversion:
            raise ValueError("braces must hold the name of a column, as in {question}; a brace itself is written {{")
        yield literal, name


def _fill(text: str, row: Mapping[str, Any], turn: str) -> str:
    if not {"{", "}"} & set(text):
        return _cell(row, text, turn)  # without braces it is the name of a column
    return "".join(literal + (_cell(row, name, turn) if name is not None else "") for literal, name in _fields(text))


def _holds_calls(value: Any) -> bool:
    return _are_calls(value) if isinstance(value, str) else isinstance(value, list) and bool(value)


def _are_calls(text: str) -> bool:
    """Whether a reply is the JSON of calls, and nothing else."""
    if not text.lstrip().startswith(("[", "{")):
        return False
    try:
        return bool(read_calls(text, "", Unread()))
    except RowError:
        return False


def _known(row: Mapping[str, Any], column: str, turn: str) -> Any:
    if column not in row:
        columns = ", ".join(map(str, row))
        raise RowError(turn, f"there is no column '{column}'.{did_you_mean(column, row)} The row has: {columns}.")
    return row[column]


def _cell(row: Mapping[str, Any], column: str, turn: str) -> str:
    value = _known(row, column, turn)
    if value is None:
        raise RowError(column, "is null")
    if isinstance(value, Mapping | list | bytes):
        raise RowError(column, "must be text or a number to stand in a turn")
    return str(value)
