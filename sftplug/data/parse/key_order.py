"""Calls whose keys stand in another order than the template writes them in: to JSON that is the same call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sftplug.data.parse.values import DEEPEST, Unreadable

MOST_OBJECTS = 200
"""So many places of a text are looked at."""
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object as it is written."""

    members: Mapping[str, str]
    """Key -> its value, as it is written."""
    gaps: tuple[str, str, str, str]
    """What stands before the first key, between key and value, between members, and after the last."""
    end: int


def in_order_of(sample: str, text: str) -> str:
    """Return `text` with the keys of its JSON objects as in `sample`, a call that the template wrote.

    Objects with other keys stay as they are, and so do arguments, which are an object within.
    """
    template = next((found for _, found in _objects(sample)), None)
    if template is None or len(template.members) < 2:
        return text
    written, at = [], 0
    for begin, found in _objects(text):
        written += [text[at:begin], _rewritten(text[begin : found.end], template)]
        at = found.end
    return "".join([*written, text[at:]])


def _objects(text: str) -> Iterator[tuple[int, _Object]]:
    """Yield the outermost objects of a text, and where they begin."""
    at = 0
    for _ in range(MOST_OBJECTS):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            found = _object(text, at)
        except Unreadable:
            at += 1
            continue
        yield at, found
        at = found.end


def _rewritten(written: str, template: _Object, depth: int = 0) -> str:
    """Return an object with the keys in the order of the template's, where they are the same keys."""
    found = _object(written, 0)
    if {*found.members} != {*template.members} or depth > DEEPEST:
        return written
    inner = {key: _inner(found.members[key], template.members[key], depth) for key in template.members}
    if [*found.members] == [*template.members] and inner == found.members:
        return written
    opening, colon, comma, closing = template.gaps
    members = comma.join(f'"{key}"{colon}{value}' for key, value in inner.items())
    return f"{{{opening}{members}{closing}}}"


def _inner(written: str, template: str, depth: int) -> str:
    """Return a value, its own keys in order where it is an object of several, as ``function`` in a call may be."""
    if not (written.startswith("{") and template.startswith("{")):
        return written
    wanted = _object(template, 0)
    return _rewritten(written, wanted, depth + 1) if len(wanted.members) > 1 else written


def _object(text: str, at: int) -> _Object:
    """Return the object that begins at `at`. Raises Unreadable where there is none, or a key stands twice."""
    members: dict[str, str] = {}
    begin = _skip(text, at + 1)
    gaps, end = [text[at + 1 : begin], "", ""], begin
    while not text.startswith("}", end):
        key, after = _value(text, end)
        colon = _skip(text, after)
        if not isinstance(key, str) or key in members or not text.startswith(":", colon):
            raise Unreadable
        value = _skip(text, colon + 1)
        _, end = _value(text, value)
        members[key], gaps[1], last = text[value:end], text[after:value], end
        end = _skip(text, end)
        if text.startswith(",", end):
            end = _skip(text, end + 1)
            gaps[2] = text[last:end]
        elif not text.startswith("}", end):
            raise Unreadable
    if not members:
        raise Unreadable
    return _Object(members, (gaps[0], gaps[1], gaps[2], text[last:end]), end + 1)


def _value(text: str, at: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise Unreadable from error


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
