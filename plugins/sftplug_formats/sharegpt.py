"""Conversations as ShareGPT wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Message, RowError, ToolCall, did_you_mean
from sftplug_formats.fields import kind_of, optional_text, parsed_json, read_tools
from sftplug_formats.messages import read_tool_call, read_weight

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "function_call",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


class ShareGPT(DatasetFormat):
    """Turns with `from` and `value` (or `role` and `content`): human, gpt, system, function_call, observation, tool.

    A turn may carry `train: false` or a `weight`, which the masking `message_weights` reads.
    """

    type: Literal["sharegpt"] = "sharegpt"
    column: str = "conversations"
    """Column that holds the list of turns."""
    tools: str = "tools"
    """Column that holds the tool schemas: a list, or the JSON text of one."""
    system: str = "system"
    """Column that holds the system prompt. Where a turn of the row says the same, it is said once; another one is an
    error."""

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the turns as messages; a `function_call` becomes the tool calls of an assistant message."""
        turns = row.get(self.column)
        if not isinstance(turns, list | tuple):
            hint = did_you_mean(self.column, row) if self.column not in row else ""
            raise RowError(self.column, f"must be a list of turns, not {kind_of(turns)}.{hint}")
        if not turns:
            raise RowError(self.column, "holds no turn")
        said = tuple(_turn(turn, f"{self.column}[{index}]") for index, turn in enumerate(turns))
        return Conversation((*self._system(row, said), *said), read_tools(row, self.tools))

    def _system(self, row: Mapping[str, Any], said: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return the system turn of the column; none where the turns hold it already."""
        text, own = optional_text(row, self.system), [turn.content for turn in said if turn.role == "system"]
        if not text or text in own:
            return ()
        if own:
            raise RowError(
                self.system,
                f"is another system prompt than that of the turns in {self.column}. For the turns' alone: "
                f"`system: ''` in the format, and `ignore: [{self.system}]` beside it.",
            )
        return (Message("system", text),)


def _turn(turn: Any, field: str) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError(field, f"must be an object with from and value, not {kind_of(turn)}")
    who_key, what_key = ("from", "value") if "from" in turn else ("role", "content")
    who, what = turn.get(who_key), turn.get(what_key)
    if not isinstance(who, str) or who not in _ROLES:
        known = ", ".join(_ROLES)
        raise RowError(f"{field}.{who_key}", f"nobody knows {who!r}.{did_you_mean(who, _ROLES)} Known: {known}.")
    if not isinstance(what, str):
        raise RowError(f"{field}.{what_key}", f"must be text, not {kind_of(what)}")
    # A table has one set of columns for all turns; what a turn does not have is null there.
    weight = read_weight({key: value for key, value in turn.items() if value is not None}, field)
    if _ROLES[who] == "function_call":
        return Message("assistant", None, tool_calls=_calls(what, f"{field}.{what_key}"), weight=weight)
    return Message(_ROLES[who], what, weight=weight)


def _calls(text: str, field: str) -> tuple[ToolCall, ...]:
    value = parsed_json(text, field)
    calls = value if isinstance(value, list) else [value]
    return tuple(
        read_tool_call(call, field if len(calls) == 1 else f"{field}[{index}]") for index, call in enumerate(calls)
    )
