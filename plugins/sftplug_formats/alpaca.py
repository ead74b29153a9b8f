"""Rows as Stanford Alpaca wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Field, Message, Recognized, RowError
from sftplug_formats.fields import kind_of, optional_text, required_text
from sftplug_formats.recognition import Rows, columns, has_text


class Alpaca(DatasetFormat):
    """An `instruction` with an optional `input` and its `output`; `system` and `history` too (Taori et al. 2023)."""

    type: Literal["alpaca"] = "alpaca"
    instruction: str = "instruction"
    """Column that holds the instruction."""
    input: str = "input"
    """Column that holds what the instruction is about; may be empty."""
    output: str = "output"
    """Column that holds the reply."""
    system: str = "system"
    """Column that holds the system prompt, where the row has one."""
    history: str = "history"
    """Column that holds earlier turns: a list of [question, reply]."""
    separator: str = Field("\n\n")
    """What stands between the instruction and its input."""

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with `instruction` and `output`; with `response`, and perhaps `context`, as Dolly has them, too."""
        if not has_text(rows, "instruction"):
            return "no text in `instruction`"
        replies = [name for name in ("output", "response") if has_text(rows, name)]
        if len(replies) != 1:
            return "no text in `output` or `response`" if not replies else "text in both `output` and `response`"
        given = [name for name in ("input", "context") if name in columns(rows)]
        if len(given) > 1:
            return "the instruction is about `input` or about `context`, and the rows have both"
        wanted = {"input": given[0] if given else "input", "output": replies[0]}
        options = {option: column for option, column in wanted.items() if option != column}
        return Recognized(f"columns {', '.join(['instruction', *given, *replies])}", options)

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return system prompt, history, question and reply as messages."""
        system = optional_text(row, self.system)
        question = self.separator.join(filter(None, self._question(row)))
        reply = Message("assistant", required_text(row, self.output))
        before = [Message("system", system)] if system else []
        before += [*self._history(row), Message("user", question)]
        return Conversation((*before, reply), completion_from=len(before))

    def _question(self, row: Mapping[str, Any]) -> tuple[str, str]:
        return required_text(row, self.instruction), optional_text(row, self.input)

    def _history(self, row: Mapping[str, Any]) -> Iterator[Message]:
        turns = row.get(self.history) or []
        if not isinstance(turns, list | tuple):
            raise RowError(self.history, f"must be a list of [question, reply], not {kind_of(turns)}")
        for index, turn in enumerate(turns):
            if not isinstance(turn, list | tuple) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
                raise RowError(f"{self.history}[{index}]", "must be [question, reply], two texts")
            yield from (Message("user", turn[0]), Message("assistant", turn[1]))
