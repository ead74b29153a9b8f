"""Read the values of arguments, as JSON, Python and templates of their own notation write them.

It reads more than any template writes; what was read is rendered again and compared, so nothing is taken for granted.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Codec = Literal["raw", "json"]
"""How a template writes a text argument: as it is, or with the escapes of JSON."""

DEEPEST = 64
"""So deep may lists and objects be nested."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS: dict[str, Any] = {"null": None, "none": None, "true": True, "false": False}
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_BARE_KEY = re.compile(r"[^\s:{}\[\],\"']+")
_SPACE = re.compile(r"\s*")


class Unreadable(ValueError):
    """There is no value in this place."""


@dataclass(frozen=True, slots=True)
class ValueReader:
    """Reads values that begin at a place in a text."""

    opening: str = ""
    """What a template puts before a text within values, where that is no quotation mark: Gemma 4's ``<|"|>``."""
    closing: str = ""

    def read(self, text: str, at: int, depth: int = 0) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where it ends. Raises Unreadable."""
        if depth > DEEPEST:
            raise Unreadable
        if self.opening and text.startswith(self.opening, at):
            return self._between(text, at)
        first = text[at : at + 1]
        if first == "{":
            return self._object(text, at, depth)
        if first == "[":
            return self._list(text, at, depth)
        return _quoted(text, at) if first in ("'", '"') else _scalar(text, at)

    def _between(self, text: str, at: int) -> tuple[str, int]:
        begin = at + len(self.opening)
        end = text.find(self.closing, begin)
        if end < 0:
            raise Unreadable
        return text[begin:end], end + len(self.closing)

    def _list(self, text: str, at: int, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = _skip(text, at + 1)
        while not text.startswith("]", at):
            item, at = self.read(text, at, depth + 1)
            items.append(item)
            at = _next(text, at, "]")
        return items, at + 1

    def _object(self, text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = _skip(text, at + 1)
        while not text.startswith("}", at):
            key, at = self._key(text, at)
            at = _skip(text, at)
            if not text.startswith(":", at):
                raise Unreadable
            found[key], at = self.read(text, _skip(text, at + 1), depth + 1)
            at = _next(text, at, "}")
        return found, at + 1

    def _key(self, text: str, at: int) -> tuple[str, int]:
        if self.opening and text.startswith(self.opening, at):
            return self._between(text, at)
        if text[at : at + 1] in ("'", '"'):
            return _quoted(text, at)
        bare = _BARE_KEY.match(text, at)
        if bare is None:
            raise Unreadable
        return bare[0], bare.end()


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _next(text: str, at: int, end: str) -> int:
    """Return where the next item begins, or where `end` stands."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(end, at):
        raise Unreadable
    return at


def _quoted(text: str, at: int) -> tuple[str, int]:
    found = _QUOTED.match(text, at)
    if found is None:
        raise Unreadable
    try:
        value = json.loads(found[0], strict=False) if found[0][0] == '"' else ast.literal_eval(found[0])
    except (ValueError, SyntaxError) as error:
        raise Unreadable from error
    return str(value), found.end()


def _scalar(text: str, at: int) -> tuple[Any, int]:
    number = _NUMBER.match(text, at)
    if number is not None:
        try:
            return json.loads(number[0]), number.end()
        except ValueError as error:  # of more digits than Python reads
            raise Unreadable from error
    word = _WORD.match(text, at)
    if word is None or word[0].lower() not in _WORDS:
        raise Unreadable
    return _WORDS[word[0].lower()], word.end()


def escaped(text: str, codec: Codec) -> str:
    """Return how a template writes `text`."""
    return json.dumps(text, ensure_ascii=False)[1:-1] if codec == "json" else text


def unescaped(written: str, codec: Codec) -> str:
    """Return the text that a template wrote so. Raises Unreadable for what it cannot have written."""
    if codec == "raw":
        return written
    try:
        return str(json.loads(f'"{written}"'))
    except ValueError as error:
        raise Unreadable from error


def read_object(text: str, at: int) -> int:
    """Return where the JSON object that begins at `at` ends. Raises Unreadable where there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise Unreadable from error
    if not isinstance(value, dict):
        raise Unreadable
    return end
