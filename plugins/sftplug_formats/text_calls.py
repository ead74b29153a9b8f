"""Calls of tools that replies write in their text, and tools that system prompts hold in theirs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

from sftplug import RowError, ToolCall
from sftplug_formats.calls import ARGUMENTS, calls_in, python_calls, python_value, read_calls, read_tools
from sftplug_formats.fields import parsed_json
from sftplug_formats.spelling import Unread

Notation = Literal["python", "json", "tool_call", "functioncall"]

# Neither pattern looks past the next tag, so that a text of nothing but opening tags is read once.
_TAG = re.compile(r"<tool_call>((?:(?!</?tool_call>).)*)</tool_call>", re.DOTALL)
_ANSWER = re.compile(r"<tool_response>((?:(?!</?tool_response>).)*)</tool_response>", re.DOTALL)
_HALF = re.compile(r"<tool_call>\s*[\[{]")
_FUNCTION = re.compile(r"<functioncall>\s*", re.IGNORECASE)
_QUOTED = re.compile(r"""\{\s*"name"\s*:\s*"([^"]+)"\s*,\s*"arguments"\s*:\s*'(.*)'\s*\}""", re.DOTALL)
"""A call whose arguments are JSON in single quotes, as Glaive wrote them."""
_BRACKETED = re.compile(r"\[\s*[^\W\d][^\[\](){}=\"']*\((?:\s*\)(?:\s*,.*\))?|\s*[^\W\d]\w*\s*=.*\))\s*\]", re.DOTALL)
"""A list of calls as Python writes them, the names of which may hold spaces: ``[Market Trends(country="us")]``."""
_TRIED = 1000
"""So many brackets of a system prompt that open no JSON are looked at."""
_OPENS = re.compile(r"[\[{]")
_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_NAME = re.compile(r"(?:^\[|(?<=\)),)\s*([^\W\d][^\[\](){}=\"',]*?)\s*(?=\()")


def calls_of(text: str, notation: Notation, where: str, unread: Unread) -> tuple[str | None, tuple[ToolCall, ...]]:
    """Return what a reply says before the calls in it, and these. Raises RowError for calls that cannot be read.

    A reply that holds none is returned as it is.
    """
    found = _READERS[notation](text, where)
    if found is None:
        return text, ()
    said, calls = found
    return said.strip() or None, read_calls(calls, where, unread)


_Found = tuple[str, Any] | None
"""What stands before the calls, and the calls as a row may write them."""


def _python(text: str, where: str) -> _Found:
    text = text.strip()
    if not _BRACKETED.fullmatch(text):
        return None
    calls = python_calls(text) or _named_freely(text)
    if calls is None:
        raise RowError(where, f"seems to be calls of tools, and cannot be read as such: {text[:60]!r}")
    return "", calls


def _named_freely(text: str) -> list[dict[str, Any]] | None:
    """Return calls of tools whose names Python cannot have, such as ``Market Trends API``; None for something else.

    Each name is read as ``tool0``, ``tool1`` …, and put back.
    """
    names: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        names.append(match[1])
        return match[0].replace(match[1], f"tool{len(names) - 1}")

    calls = python_calls(_NAME.sub(stand_in, text))
    if calls is None or [call["name"] for call in calls] != [f"tool{index}" for index, _ in enumerate(names)]:
        return None  # a text among the arguments looks like a call
    return [{**call, "name": name} for call, name in zip(calls, names, strict=True)]


def _json(text: str, where: str) -> _Found:
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        calls = parsed_json(text, where)
        read_calls(calls, where, Unread())
    except RowError:
        return None  # a list, or an object, that is no call: somebody was asked for JSON
    return ("", calls) if calls and all(map(_has_arguments, _listed(calls))) else None


def _has_arguments(call: Any) -> bool:
    """Whether a call says with what: ``{"name": "Ada"}`` may be anything that has a name."""
    function = call.get("function", call) if isinstance(call, Mapping) else ()
    return not {*ARGUMENTS}.isdisjoint(function if isinstance(function, Mapping) else ())


def _tagged(text: str, where: str) -> _Found:
    found = [*_TAG.finditer(text)]
    begin, last = (found[0].start(), found[-1].end()) if found else (len(text), len(text))
    if _HALF.search(_TAG.sub("", text)):
        raise RowError(where, "holds a call of which only one of the tags <tool_call> and </tool_call> is there")
    if not found:
        return None
    if _TAG.sub("", text[begin:last]).strip() or text[last:].strip():
        raise RowError(where, "goes on after a call: a turn is rendered as its text and then its calls")
    return text[:begin], [call for match in found for call in _listed(calls_in(match[1].strip(), where))]


def _function(text: str, where: str) -> _Found:
    said, *calls = _FUNCTION.split(text)
    return (said, [_glaive(call.strip(), where) for call in calls]) if calls else None


def _glaive(text: str, where: str) -> Any:
    """Return a call whose arguments may be JSON in single quotes: ``{"name": "f", "arguments": '{"x": 1}'}``."""
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return parsed_json(text, where)
    name, arguments = quoted.groups()
    try:
        json.loads(arguments)
    except ValueError:  # what is quoted may be escaped as Python does it: '{"text": "It\'s"}'
        with suppress(SyntaxError, ValueError):  # the reader of arguments says what is wrong with them
            arguments = ast.literal_eval(f"'{arguments}'")
    return {"name": name, "arguments": arguments}


_READERS = {"python": _python, "json": _json, "tool_call": _tagged, "functioncall": _function}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def answers_of(text: str) -> list[str]:
    """Return what tools answer in ``<tool_response>`` tags; the text as it is where there is something else in it."""
    found = _ANSWER.findall(text)
    return [answer.strip() for answer in found] if found and not _ANSWER.sub("", text).strip() else [text]


# --- tools ------------------------------------------------------------------------------------------------------------


def tools_taken_from(text: str, where: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """Return a system prompt without the tools that it holds as JSON, and the tools."""
    found, rest, last = [], [], 0
    for start, end, value in _values(text):
        tools = _listed(value)
        if tools and all(map(_is_tool, tools)):
            found += tools
            rest.append(text[last:start])
            last = end
    if not found:
        return text, ()
    said = re.sub(r"<tools>\s*</tools>", "", "".join([*rest, text[last:]]))
    return said.strip(), read_tools(found, where)


def _values(text: str) -> Iterator[tuple[int, int, Any]]:
    """Yield (start, end, value) of each object and list of JSON in a text."""
    decoder, at, tried = json.JSONDecoder(), 0, 0
    while (match := _OPENS.search(text, at)) and tried < _TRIED:
        try:
            value, at = decoder.raw_decode(text, match.start())
            yield match.start(), at, value
        except (ValueError, RecursionError):
            at, tried = match.end(), tried + 1
            tagged = _TOOLS.match(text, max(text.rfind("<tools>", 0, at), 0))
            if tagged and not text[tagged.start() + len("<tools>") : match.start()].strip():
                value = python_value(tagged[1])
                if value is not None:
                    yield match.start(), tagged.end(1), value
                    at = tagged.end()


def _is_tool(value: Any) -> bool:
    tool = value.get("function", value) if isinstance(value, Mapping) else None
    known = {"parameters", "description", "input_schema"}
    return isinstance(tool, Mapping) and isinstance(tool.get("name"), str) and bool(known & tool.keys())
