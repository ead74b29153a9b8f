"""Calls of tools that replies write in their text, where no format was told to read them as calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftplug.data.noted import tool_names
from sftplug.types.conversation import Conversation, Message

KIND = "calls as text"

_NOTATIONS: Mapping[str, re.Pattern[str]] = {
    "functioncall": re.compile(r"<functioncall>\s*\{"),
    "tool_call": re.compile(r"<tool_call>\s*[\[{]"),
    "python": re.compile(
        r"\A\s*\[\s*[^\W\d][^\[\](){}=\"']*\((?:\s*\)(?:\s*,.*\))?|\s*[^\W\d]\w*\s*=.*\))\s*\]\s*\Z", re.DOTALL
    ),
}
"""Way to write calls in a text, as the formats' option `calls_in_text` names it -> what it looks like."""
_BEGINS = re.compile(r"\s*\[\s*[^\W\d][^\[\](){}=\"'\n]*\((?:\s*\)|\s*[^\W\d]\w*\s*=(?!=))")
"""How a reply begins that calls a tool as Python does: ``[look(at="sky"``."""
_ARGUMENTS = ("arguments", "parameters")
_SHOWN = 30
"""So many characters of a call are shown."""


CALL_BEGINS = ("[", "{")
CALL_MARKS = ("<functioncall>", "<tool_call>")


def may_call(text: str) -> bool:
    """Whether it is worth while to look for calls in a text: quickly told, for nearly no text has any."""
    first = text[:1]
    if first.isspace():
        first = text.lstrip()[:1]
    return first in CALL_BEGINS or any(mark in text for mark in CALL_MARKS)


def calls_as_text(conversation: Conversation, offered: bool) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of the first reply in which calls are text.

    `offered` says whether the format has the option that would make calls of them.
    """
    tools = [*tool_names(conversation)]
    for index, message in enumerate(conversation.messages):
        text = message.content if _replies(message) else None
        if not isinstance(text, str):
            continue
        if may_call(text) and (notation := _notation(text)) is not None:
            start = text[_begin(text, notation) :].strip()[:_SHOWN]
            way = f"; with `calls_in_text: {notation}` in the format it is a call" if offered else ""
            yield KIND, f"messages[{index}] writes calls of tools as text ({start!r} …), trained as it stands{way}"
            return
        if (at := _beside(text, tools)) >= 0:
            start = text[at:].strip()[:_SHOWN]
            yield (
                KIND,
                f"messages[{index}] calls a tool among other words ({start!r} …), trained as it stands. Write the call "
                "under `tool_calls` of the message, where it is one",
            )
            return


def _replies(message: Message) -> bool:
    return message.role == "assistant" and not message.tool_calls


def _notation(text: str) -> str | None:
    found = next((name for name, pattern in _NOTATIONS.items() if pattern.search(text)), None)
    return found or ("json" if _is_json_of_calls(text) else None)


def _begin(text: str, notation: str) -> int:
    match = _NOTATIONS[notation].search(text) if notation in _NOTATIONS else None
    return match.start() if match else 0


def _beside(text: str, tools: Sequence[str]) -> int:
    """Return where a reply that says more besides calls a tool; -1 where it does not.

    Where it begins with a call, or calls one of the row's own `tools`: elsewhere what looks like a call may be code.
    """
    lead = len(text) - len(text.lstrip())
    if _BEGINS.match(text) or (text[lead : lead + 1] in CALL_BEGINS and _begins_with_json(text, lead)):
        return lead
    return next((at for name in tools if name in text and (at := _called(name, text)) >= 0), -1)


def _called(name: str, text: str) -> int:
    """Return where a text calls a tool, as Python or as JSON does; -1 where it does not."""
    word = re.escape(name)
    as_python = rf"(?<![\w.]){word}\(\s*[^\W\d]\w*\s*=(?!=)|\[\s*{word}\(\s*\)"
    as_json = rf"\"name\"\s*:\s*\"{word}\"" if any(f'"{key}"' in text for key in _ARGUMENTS) else None
    found = re.search(as_python, text) or (as_json and re.search(as_json, text))
    return found.start() if found else -1


def _begins_with_json(text: str, at: int) -> bool:
    try:
        value, _ = json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError):
        return False
    return _are_calls(value)


def _is_json_of_calls(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return _are_calls(value)


def _are_calls(value: Any) -> bool:
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(map(_is_call, calls))


def _is_call(value: Any) -> bool:
    call = value.get("function", value) if isinstance(value, dict) else None
    return isinstance(call, dict) and isinstance(call.get("name"), str) and bool({*_ARGUMENTS} & {*call})
