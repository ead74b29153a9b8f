"""Conversations whose turns are texts alone: the first is the user's, the next the assistant's, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any, Literal

from sftplug import Recognized, RowError
from sftplug_formats.conversations import OneColumn
from sftplug_formats.fields import kind_of, parsed_json
from sftplug_formats.recognition import Rows, columns, most

_COLUMNS = ("conversations", "conversation", "data", "dialog", "dialogue", "messages", "turns", "utterances")
"""Columns in which a list of texts is a conversation; elsewhere it may be keywords, or choices."""


class Alternating(OneColumn):
    """A list of texts, turn by turn: the user's, the assistant's, the user's … (LIMA, UltraChat), or pairs of them.

    A pair is a list of two texts, or an object such as ``{human: …, assistant: …}``.
    """

    type: Literal["alternating"] = "alternating"
    column: str = "conversations"
    """Column that holds the list of texts."""
    first: Literal["user", "assistant"] = "user"
    """Whose turn the first text is."""

    @classmethod
    def recognizes(cls, rows: Rows) -> Recognized | str:
        """Take rows with a list of texts in a column that is called as conversations are."""
        found = [name for name in _COLUMNS if name in columns(rows) and most(rows, name, _are_texts)]
        if len(found) == 1:
            options = {} if found == ["conversations"] else {"column": found[0]}
            return Recognized(f"column {found[0]}, texts that take turns", options)
        if found:
            return f"the columns {' and '.join(found)} hold lists of texts: `column` says which is meant"
        return f"no column such as {', '.join(f'`{name}`' for name in _COLUMNS[:3])} holds a list of texts"

    def turns(self, value: Any) -> list[dict[str, str]]:
        """Return the texts, each with whose turn it is."""
        value = parsed_json(value, self.column) if isinstance(value, str) else value
        if not isinstance(value, list | tuple):
            raise RowError(self.column, f"must be a list of texts, not {kind_of(value)}")
        if value and all(map(_pair, value)):
            value = [text for pair in value for text in _pair(pair)]
        for index, text in enumerate(value):
            if not isinstance(text, str):
                raise RowError(f"{self.column}[{index}]", f"must be text, not {kind_of(text)}")
        roles = cycle(("user", "assistant") if self.first == "user" else ("assistant", "user"))
        return [{"role": role, "content": text} for role, text in zip(roles, value, strict=False)]


def _are_texts(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(item, str) for item in value) or all(map(_pair, value))


_NAMED = tuple(
    frozenset(names)
    for names in (("human", "assistant"), ("user", "assistant"), ("human", "gpt"), ("human", "bot"), ("user", "bot"))
)
_REPLIES = ("assistant", "gpt", "bot")


def _pair(value: Any) -> tuple[str, ...]:
    """Return a question and its reply, in a list or as ``{human: …, assistant: …}``; nothing for anything else."""
    if isinstance(value, Mapping) and frozenset(value) in _NAMED:
        value = [value[name] for name in sorted(value, key=_REPLIES.__contains__)]
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(text, str) for text in value)
    return tuple(value) if is_pair else ()
