"""Any table: the recipe says which column, or which text with columns in it, is whose turn."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import field_validator

from sftplug import Conversation, DatasetFormat, Field, Message, RowError, did_you_mean


class Columns(DatasetFormat):
    """Any table. Each turn is a column's name, or a text with `{column}` in it: `user: "Translate: {english}"`."""

    type: Literal["columns"] = "columns"
    system: str | None = None
    """The system prompt."""
    user: str = Field(examples=["question"])
    """The question."""
    assistant: str = Field(examples=["answer"])
    """The reply."""

    @field_validator("system", "user", "assistant")
    @classmethod
    def _well_formed(cls, value: str | None) -> str | None:
        if value is not None:
            list(_fields(value))
        return value

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the turns, filled in from the row."""
        before = [Message("system", _fill(self.system, row, "system"))] if self.system is not None else []
        before.append(Message("user", _fill(self.user, row, "user")))
        reply = Message("assistant", _fill(self.assistant, row, "assistant"))
        return Conversation((*before, reply), completion_from=len(before))


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


def _cell(row: Mapping[str, Any], column: str, turn: str) -> str:
    if column not in row:
        columns = ", ".join(map(str, row))
        raise RowError(turn, f"there is no column '{column}'.{did_you_mean(column, row)} The row has: {columns}.")
    value = row[column]
    if value is None:
        raise RowError(column, "is null")
    if isinstance(value, Mapping | list | bytes):
        raise RowError(column, "must be text or a number to stand in a turn")
    return str(value)
