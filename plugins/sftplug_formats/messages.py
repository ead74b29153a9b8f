"""Conversations as the OpenAI chat format writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sftplug import Conversation, DatasetFormat, Message, RowError, ToolCall, did_you_mean
from sftplug_formats.fields import kind_of, parsed_json, read_tools

_KEYS = (
    "role",
    "content",
    "tool_calls",
    "reasoning_content",
    "reasoning",
    "thinking",
    "name",
    "tool_call_id",
    "weight",
    "train",
)


class Messages(DatasetFormat):
    """A list of messages with `role` and `content`, tool calls and reasoning too (the OpenAI chat format).

    A message may carry `train: false` or a `weight`, which the masking `message_weights` reads.
    """

    type: Literal["messages"] = "messages"
    column: str = "messages"
    """Column that holds the list of messages."""
    tools: str = "tools"
    """Column that holds the tool schemas: a list, or the JSON text of one."""

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation in the row."""
        if self.column not in row:
            raise RowError(self.column, f"is missing.{did_you_mean(self.column, row)} The row has: {', '.join(row)}.")
        return Conversation(tuple(read_messages(row[self.column], self.column)), read_tools(row, self.tools))


def read_messages(value: Any, field: str) -> list[Message]:
    """Return the messages in `value`, a list of objects. Raises RowError naming the message and the key."""
    if isinstance(value, str):
        value = parsed_json(value, field)
    if not isinstance(value, list | tuple):
        raise RowError(field, f"must be a list of messages, not {kind_of(value)}")
    if not value:
        raise RowError(field, "holds no message")
    return [_message(item, f"{field}[{index}]") for index, item in enumerate(value)]


def _message(item: Any, field: str) -> Message:
    if type(item) is dict and len(item) == 2 and type(item.get("role")) is type(item.get("content")) is str:
        return Message(item["role"], item["content"])  # most messages are no more than that
    if not isinstance(item, Mapping):
        raise RowError(field, f"must be an object with role and content, not {kind_of(item)}")
    # A table has one set of columns for all messages; what a message does not have is null there.
    given = {key: value for key, value in item.items() if value is not None}
    _refuse_unknown_keys(given, field)
    if not isinstance(given.get("role"), str):
        raise RowError(f"{field}.role", "is missing" if "role" not in given else "must be text")
    calls = _tool_calls(given.get("tool_calls"), f"{field}.tool_calls")
    return Message(
        role=given["role"],
        content=_content(given.get("content"), f"{field}.content", may_lack=bool(calls)),
        tool_calls=calls,
        reasoning_content=_reasoning(given, field),
        name=_optional(given, "name", field),
        tool_call_id=_optional(given, "tool_call_id", field),
        weight=read_weight(given, field),
    )


def _refuse_unknown_keys(given: Mapping[str, Any], field: str) -> None:
    for key in given:
        if key not in _KEYS:
            spelling = " `from` and `value` are the keys of the format `sharegpt`." if key in ("from", "value") else ""
            known = ", ".join(_KEYS)
            raise RowError(f"{field}.{key}", f"unknown key.{did_you_mean(key, _KEYS)}{spelling} Known: {known}.")


def _content(content: Any, field: str, *, may_lack: bool) -> str | list[Mapping[str, Any]] | None:
    if content is None:
        if may_lack:
            return None
        raise RowError(field, "is missing, and the message has no tool calls")
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise RowError(field, f"must be text or a list of parts, not {kind_of(content)}")
    return [_part(part, f"{field}[{index}]") for index, part in enumerate(content)]


def _part(part: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise RowError(field, "must be a part with a type, such as {type: text, text: …}")
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise RowError(f"{field}.text", f"must be text, not {kind_of(part.get('text'))}")
    given = {key: value for key, value in part.items() if value is not None}
    weight = read_weight(given, field)
    rest = {key: value for key, value in given.items() if key not in ("train", "weight")}
    return rest if weight is None else {**rest, "weight": weight}


def _tool_calls(calls: Any, field: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list | tuple):
        raise RowError(field, f"must be a list of calls, not {kind_of(calls)}")
    return tuple(read_tool_call(call, f"{field}[{index}]") for index, call in enumerate(calls))


def read_tool_call(call: Any, field: str) -> ToolCall:
    """Return the call in ``{"function": {"name", "arguments"}}`` or ``{"name", "arguments"}``. Raises RowError."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(field, "must be a call with a name and arguments")
    arguments = function.get("arguments")
    arguments = {} if arguments is None else arguments
    if isinstance(arguments, str):
        parsed_json(arguments or "{}", f"{field}.arguments")
    elif not isinstance(arguments, Mapping):
        raise RowError(f"{field}.arguments", f"must be an object or its JSON text, not {kind_of(arguments)}")
    return ToolCall(function["name"], arguments, call.get("id"))


def _optional(given: Mapping[str, Any], key: str, field: str) -> str | None:
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        raise RowError(f"{field}.{key}", f"must be text, not {kind_of(value)}")
    return value


def _reasoning(given: Mapping[str, Any], field: str) -> str | None:
    found = [key for key in ("reasoning_content", "reasoning", "thinking") if key in given]
    if len(found) > 1:
        raise RowError(f"{field}.{found[1]}", f"says the same as {found[0]}: keep one of them")
    return _optional(given, found[0], field) if found else None


def read_weight(given: Mapping[str, Any], field: str) -> float | None:
    """Return the loss weight that `train` or `weight` gives; None where there is neither. Raises RowError."""
    if "train" in given and "weight" in given:
        raise RowError(f"{field}.train", "does not go together with weight")
    if "train" in given:
        if not isinstance(given["train"], bool):
            raise RowError(f"{field}.train", f"must be true or false, not {kind_of(given['train'])}")
        return float(given["train"])
    weight = given.get("weight")
    if weight is None:
        return None
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise RowError(f"{field}.weight", f"must be a number of at least 0, not {weight!r}")
    try:
        return float(weight)
    except OverflowError as error:
        raise RowError(f"{field}.weight", "is a number beyond all bounds") from error
