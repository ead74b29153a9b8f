"""What a message says in parts: OpenAI's, Anthropic's blocks, Gemini's parts, the items of the Responses API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftplug import Message, RowError, ToolCall
from sftplug_formats.calls import call_of_block
from sftplug_formats.fields import kind_of
from sftplug_formats.spelling import Keys, Unread, optional, present, spelled
from sftplug_formats.weights import WEIGHTS, read_weight

Part = Mapping[str, Any]

_TEXTS = {"text", "input_text", "output_text", "summary_text", "reasoning_text"}
_THOUGHTS = {"thinking", "reasoning"}
_CALLS, _RESULTS = {"tool_use", "tool-call"}, {"tool_result", "tool-result"}
_ANSWERS = ("content", "output", "response", "result")
_IDS = ("tool_use_id", "tool_call_id", "toolCallId", "id")
_NAMES = ("name", "toolName")
_RESULT = {"type", *_ANSWERS, *_IDS, *_NAMES}
_GEMINI = {
    "functionCall": "tool_use",
    "function_call": "tool_use",
    "functionResponse": "tool_result",
    "function_response": "tool_result",
    "inlineData": "media",
    "inline_data": "media",
    "fileData": "media",
    "file_data": "media",
}
"""Key of a part without a type -> what it is of."""


@dataclass(slots=True)
class Blocks:
    """The parts of one message, told apart by what they are."""

    where: str
    unread: Unread
    texts: list[Part] = field(default_factory=list)
    """Text, and what is no text for the core to refuse, as parts."""
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    """What tools answered, and before, between and after it what the user says."""

    @property
    def content(self) -> list[Part] | str | None:
        """The texts: as parts, which a chat template may tell apart, or as one text beside calls."""
        if self.calls or self.results or self.thoughts:
            only = self.texts[0].keys() == {"type", "text"} if len(self.texts) == 1 else False
            return self.texts[0]["text"] if only else self.texts or None
        return self.texts

    @property
    def reasoning(self) -> str | None:
        """The thoughts as one text."""
        return "\n\n".join(self.thoughts) if self.thoughts else None

    def add(self, part: Any, where: str) -> None:
        """Take the next part. Raises RowError for one of an unknown sort, and for one that comes too late."""
        if not isinstance(part, Mapping):
            raise RowError(where, "must be a part with a type, such as {type: text, text: …}")
        given = present(part)
        sort, inner, where = _sort(given, where)
        if sort in _TEXTS or sort in _THOUGHTS:
            self._add_text(sort, inner, where)
        elif sort in _CALLS:
            self.calls.append(call_of_block(inner, where, self.unread))
        elif sort in _RESULTS:
            self._add_result(inner, where)
        else:
            self.texts.append({**given, "type": sort})  # an image, say: the core knows what is trained on

    def _add_text(self, sort: str, given: Keys, where: str) -> None:
        names = ("text", "thinking", "reasoning", "summary") if sort in _THOUGHTS else ("text",)
        key, text = spelled(given, names, where)
        if not isinstance(text, str):
            raise RowError(f"{where}.{key}", f"must be text, not {kind_of(text)}")
        self.unread.note(given, {"type", "thought", *names, *WEIGHTS}, where)
        weight = read_weight(given, where)
        before = self.texts or self.calls if sort in _THOUGHTS or given.get("thought") is True else self.calls
        if before:
            raise RowError(where, "comes too late: a turn is rendered as its thoughts, its text and then its calls")
        if sort in _THOUGHTS or given.get("thought") is True:
            self.thoughts.append(text)
        else:
            self.texts.append({"type": "text", "text": text, **({} if weight is None else {"weight": weight})})

    def _add_result(self, given: Keys, where: str) -> None:
        key, content = spelled(given, _ANSWERS, where)
        id = optional(given, spelled(given, _IDS, where)[0], where)
        self.unread.note(given, _RESULT, where)
        said = result_text(content, f"{where}.{key}", self.unread)
        self._flush()
        self.results.append(
            Message("tool", said, name=optional(given, spelled(given, _NAMES, where)[0], where), tool_call_id=id)
        )

    def _flush(self) -> None:
        if self.texts:
            self.results.append(Message("user", self.texts))
            self.texts = []

    def messages(self) -> Iterator[Message]:
        """Yield the results with what the user says between them."""
        self._flush()
        yield from self.results


def _sort(given: Keys, where: str) -> tuple[str, Keys, str]:
    """Return (what sort of part it is, what it holds, where that stands)."""
    if isinstance(given.get("type"), str):
        return given["type"], given, where
    for key, sort in _GEMINI.items():
        if key in given:
            if sort == "media":
                return _medium(given[key]), given, where
            if not isinstance(given[key], Mapping):
                raise RowError(f"{where}.{key}", f"must be an object, not {kind_of(given[key])}")
            return sort, present(given[key]), f"{where}.{key}"
    if isinstance(given.get("text"), str) and "type" not in given:
        return "text", given, where
    raise RowError(where, "must be a part with a type, such as {type: text, text: …}")


def _medium(data: Any) -> str:
    """Return what Gemini's data is, by its type: ``image/png``."""
    kind = str(data.get("mimeType", data.get("mime_type", ""))) if isinstance(data, Mapping) else ""
    return kind.partition("/")[0] or "file"


def read_blocks(content: Any, where: str, unread: Unread) -> Blocks:
    """Return the parts of a list. Raises RowError naming the part."""
    blocks = Blocks(where, unread)
    for index, part in enumerate(content):
        blocks.add(part, f"{where}[{index}]")
    return blocks


def result_text(content: Any, where: str, unread: Unread) -> str | list[Part]:
    """Return what a tool answered, as text or as parts of text; an object as its JSON text. Raises RowError."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, Mapping):
        return json.dumps(dict(content), ensure_ascii=False)
    if not isinstance(content, list | tuple):
        raise RowError(where, f"must be text or a list of parts, not {kind_of(content)}")
    return read_texts(content, where, unread)


def read_texts(content: Any, where: str, unread: Unread) -> str | list[Part]:
    """Return content that is text, or parts of text alone. Raises RowError for anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise RowError(where, f"must be text or a list of parts, not {kind_of(content)}")
    blocks = read_blocks(content, where, unread)
    if blocks.calls or blocks.results or blocks.thoughts:
        raise RowError(where, "must be text or parts of text: nobody calls a tool or thinks here")
    return blocks.texts or ""


def one_text(content: Any, where: str, unread: Unread, between: str) -> str:
    """Return content that is text, or parts of text with `between` between them. Raises RowError."""
    texts = read_texts(content, where, unread)
    if isinstance(texts, str):
        return texts
    for index, part in enumerate(texts):
        if part["type"] != "text":
            raise RowError(f"{where}[{index}]", f"must be text here, not of the type '{part['type']}'")
    return between.join(part["text"] for part in texts)
