"""Calls of tools and the tools themselves, in every spelling that people use."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from sftplug import RowError, ToolCall
from sftplug_formats.fields import kind_of, parsed_json
from sftplug_formats.spelling import Unread, optional, present, spelled

ARGUMENTS = ("arguments", "parameters", "input", "args")
_CALL = {"type", "id", "call_id", "function", "name", *ARGUMENTS}


def read_calls(value: Any, where: str, unread: Unread) -> tuple[ToolCall, ...]:
    """Return the calls in `value`: a list of them, one of them, or the text of either. Raises RowError."""
    if isinstance(value, str):
        value = calls_in(value, where)
    if isinstance(value, Mapping) and value:
        return (read_call(value, where, unread),)
    if not isinstance(value, list | tuple):
        raise RowError(where, f"must be a list of calls, not {kind_of(value)}")
    return tuple(read_call(call, f"{where}[{index}]", unread) for index, call in enumerate(value))


def calls_in(text: str, where: str) -> Any:
    """Return what a text of calls holds: JSON, or calls as Python writes them. Raises RowError."""
    try:
        return parsed_json(text, where)
    except RowError as error:
        calls = _line_by_line(text) or python_calls(text) or python_value(text)
        if calls is None:
            raise error
        return calls


def value_of_text(text: str, where: str) -> Any:
    """Return what a cell holds as JSON, or as Python prints objects, which tables have that pandas wrote.

    Raises RowError, which says what is wrong with it as JSON.
    """
    try:
        return parsed_json(text, where)
    except RowError as error:
        value = python_value(text)
        if value is None:
            raise error
        return value


def _line_by_line(text: str) -> list[Any] | None:
    """Return the objects of a text that has one on each line; None where it has something else."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found = [parsed_json(line, "") for line in lines]
    except RowError:
        return None
    return found if all(isinstance(call, Mapping) for call in found) else None


def python_value(text: str) -> Any:
    """Return the objects that a text has as Python prints them, ``{'name': 'f', 'arguments': {}}``; None for others."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of an escape that Python does not know
            tree = ast.parse(text.strip(), mode="eval")
        if any(_says_twice(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            return None  # only one of both could be read
        value = ast.literal_eval(tree)
        json.dumps(value, allow_nan=False)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    listed = value if isinstance(value, list) else [value]
    return value if listed and all(isinstance(item, dict) for item in listed) else None


def _says_twice(node: ast.Dict) -> bool:
    keys = [ast.dump(key) for key in node.keys if key is not None]
    return len({*keys}) != len(keys)


def python_calls(text: str) -> list[dict[str, Any]] | None:
    """Return the calls of ``weather(city="Oslo")``, one a line or in a list; None where the text is something else."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of an escape that Python does not know
            body = ast.parse(text.strip()).body
        values = [node.value for node in body if isinstance(node, ast.Expr)]
        if len(values) != len(body):
            return None
        found = [call for value in values for call in (value.elts if isinstance(value, ast.List) else [value])]
        return [_python_call(call) for call in found] or None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _python_call(call: ast.expr) -> dict[str, Any]:
    if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
        raise ValueError("not a call with named arguments")
    name = ast.unparse(call.func)
    if not re.fullmatch(r"[\w.]+", name):
        raise ValueError("not a name")
    arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    json.dumps(arguments, allow_nan=False)  # a set, or a number that JSON lacks
    return {"name": name, "arguments": arguments}


def read_call(call: Any, where: str, unread: Unread) -> ToolCall:
    """Return the call in ``{"function": {"name", "arguments"}}`` or ``{"name", "arguments"}``. Raises RowError."""
    call = parsed_json(call, where) if isinstance(call, str) else call
    if not isinstance(call, Mapping):
        raise RowError(where, "must be a call with a name and arguments")
    given = present(call)
    unread.note(given, _CALL, where)
    function = given.get("function", given)
    inner = f"{where}.function" if "function" in given else where
    function = parsed_json(function, inner) if isinstance(function, str) else function
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(where, "must be a call with a name and arguments")
    if function is not given:
        function = present(function)
        unread.note(function, _CALL, inner)
    key, arguments = spelled(function, ARGUMENTS, where)
    _, name = spelled(given, ("id", "call_id"), where)
    return ToolCall(function["name"], _arguments(arguments, f"{where}.{key}"), None if name is None else str(name))


def _arguments(value: Any, where: str) -> Mapping[str, Any] | str:
    if value is None:
        return {}
    if isinstance(value, str):
        inner = parsed_json(value or "{}", where)
        return _arguments(inner, where) if isinstance(inner, str) else value  # JSON text of JSON text
    if not isinstance(value, Mapping):
        raise RowError(where, f"must be an object or its JSON text, not {kind_of(value)}")
    return value


def read_tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tool schemas in `value` as OpenAI writes them. Raises RowError.

    It is a list of objects or of their JSON texts, or the JSON text of one, or what Python prints of one: OpenAI's,
    Anthropic's (`input_schema`), Gemini's (`functionDeclarations`), or bare functions.
    """
    if isinstance(value, str):
        value = value_of_text(value, where) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise RowError(where, f"must be a list of tools, not {kind_of(value)}")
    return tuple(tool for index, item in enumerate(value) for tool in _tools(item, f"{where}[{index}]"))


def _tools(tool: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    if isinstance(tool, str) and tool.replace("_", "").isalnum():
        raise RowError(where, f"is a name, {tool!r}: what a tool does, and with what, is said by its schema, an object")
    tool = parsed_json(tool, where) if isinstance(tool, str) else tool
    if not isinstance(tool, Mapping):
        raise RowError(where, f"must be an object, not {kind_of(tool)}")
    for key in ("functionDeclarations", "function_declarations"):
        if tool.get(key) is not None:
            if len(present(tool)) > 1:
                raise RowError(where, f"holds more than its `{key}`: a tool of another sort, which no template shows")
            return read_tools(tool[key], f"{where}.{key}")
    if "function" in tool or "name" not in tool:
        return (tool,)
    function = {key: value for key, value in tool.items() if (key, value) not in (("type", "function"), ("type", None))}
    if "input_schema" in function and "parameters" not in function:
        function = {"parameters" if key == "input_schema" else key: value for key, value in function.items()}
    return ({"type": "function", "function": function},)


def call_of_block(given: Mapping[str, Any], where: str, unread: Unread) -> ToolCall:
    """Return the call in a block of Anthropic's, ``{"type": "tool_use", …}``, or in a part of Gemini's."""
    _, name = spelled(given, ("name", "toolName"), where)
    if not isinstance(name, str):
        raise RowError(where, "must be a call with a name and arguments")
    unread.note(given, _CALL | {"toolName", "toolCallId"}, where)
    key, arguments = spelled(given, ARGUMENTS, where)
    id, _ = spelled(given, ("id", "toolCallId"), where)
    return ToolCall(name, _arguments(arguments, f"{where}.{key}"), optional(given, id, where))
