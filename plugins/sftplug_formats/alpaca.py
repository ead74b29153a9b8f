"""Rows as Stanford Alpaca wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Field, Message, RowError
from sftplug_formats.fields import kind_of, optional_text, required_text


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
