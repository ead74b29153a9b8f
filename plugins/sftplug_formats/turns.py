"""The turns of a conversation, whatever their keys and roles are called; nothing that they say is left out unsaid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftplug import Message, RowError, ToolCall
from sftplug_formats.blocks import Blocks, one_text, read_blocks, result_text
from sftplug_formats.calls import read_calls, read_tools, value_of_text
from sftplug_formats.fields import kind_of, parsed_json
from sftplug_formats.roles import guessed, role_of, unknown_role
from sftplug_formats.spelling import Keys, Unread, in_rows, optional, present, says_nothing, spelled
from sftplug_formats.text_calls import Notation, answers_of, calls_of, tools_taken_from
from sftplug_formats.weights import WEIGHTS, read_weight

WHO, WHAT = ("role", "from"), ("content", "value", "text", "parts")
CALLS, TOOLS = ("tool_calls", "function_calls", "function_call"), ("tools", "functions")
REASONING = ("reasoning_content", "reasoning", "thinking")
IDS = ("tool_call_id", "tool_call_ids")
KEYS = frozenset((*WHO, *WHAT, *CALLS, *REASONING, *IDS, *WEIGHTS, "name"))
_KEYS = {
    "system": KEYS | {*TOOLS},
    "developer": KEYS | {*TOOLS},
    "reasoning": frozenset((*WHO, *WHAT, *REASONING, *WEIGHTS)),
    "tool_call": frozenset((*WHO, *WHAT, *CALLS, *REASONING, *WEIGHTS)),
}
"""Role -> the keys that are read in its turns, where these are not `KEYS`."""

_PLAIN = {"system": "system", "user": "user", "assistant": "assistant"}
_PLAIN_FROM = {"system": "system", "human": "user", "gpt": "assistant"}


@dataclass(frozen=True, slots=True)
class _Said:
    """A message, and where it stands in the row."""

    message: Message
    where: str
    is_part: bool = False
    """Whether it is a turn for what is only a part of the assistant's: its thoughts, or its calls."""


@dataclass(slots=True)
class TurnReader:
    """Reads the turns of one row."""

    roles: Mapping[str, str] = field(default_factory=dict)
    """Further names of roles -> what they stand for."""
    calls_in_text: Notation | None = None
    """How replies write calls in their text; None where that is only text."""
    tools_in_system: bool = False
    """Whether system turns hold the JSON of tools, which is taken out of them."""
    unread: Unread = field(default_factory=Unread)
    """What was not read so far."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The tools that system turns declare themselves."""
    _unknown: dict[str, str] = field(default_factory=dict)

    def read(self, value: Any, where: str) -> list[Message]:
        """Return the messages in `value`: a list of objects, or the text of one, as JSON or as Python prints it.

        A table may have the list as an object of lists, ``{role: […], content: […]}``. Raises RowError naming the
        message and the key.
        """
        if isinstance(value, str):
            value = value_of_text(value, where)
        value = in_rows(value)
        if not isinstance(value, list | tuple):
            raise RowError(where, f"must be a list of messages, not {kind_of(value)}")
        if not value:
            raise RowError(where, "holds no message")
        is_usual = not (self.roles or self.calls_in_text or self.tools_in_system)
        if is_usual and (plain := _plain(value)) is not None:
            return plain
        self._look(value)
        said = [part for index, item in enumerate(value) for part in self._said(item, f"{where}[{index}]")]
        return _joined(said) if any(part.is_part for part in said) else [part.message for part in said]

    def _said(self, item: Any, where: str) -> Iterator[_Said]:
        """Yield the messages that one item is; a user's blocks may hold several."""
        if isinstance(item, str) and item.lstrip().startswith("{"):
            item = parsed_json(item, where)
        if not isinstance(item, Mapping):
            raise RowError(where, f"must be an object with role and content, not {kind_of(item)}")
        given = _without_type(present(item))
        role = self._role(given, where)
        self.unread.note(given, _KEYS.get(role, KEYS), where)
        if role == "reasoning":
            yield self._thought(given, where)
        elif role == "tool_call":
            yield self._call(given, where)
        else:
            yield from self._turn(role, given, where)

    def _turn(self, role: str, given: Keys, where: str) -> Iterator[_Said]:
        """Yield the messages of a turn that is not a part of another; what tools answer may be several."""
        key, content = spelled(given, WHAT, where)
        blocks, contents = None, [content]
        if isinstance(content, list | tuple):
            blocks = read_blocks(content, f"{where}.{key}", self.unread)
            if blocks.results:
                yield from self._results(blocks, given, where)
                return
            contents = [blocks.content]
        elif role == "tool":
            contents = self._answers(content, f"{where}.{key}")
        for said in contents:
            message = self._message(role, given, _Content(key, said, blocks), where)
            # A system turn that was nothing but tools is none any more.
            if not (role in ("system", "developer") and said and not message.content):
                yield _Said(message, where)

    def _answers(self, content: Any, where: str) -> list[Any]:
        """Return what a turn of tools holds: one answer, or several in ``<tool_response>`` tags."""
        if isinstance(content, Mapping):
            return [result_text(content, where, self.unread)]
        if self.calls_in_text == "tool_call" and isinstance(content, str):
            return [*answers_of(content)]
        return [content]

    def _role(self, given: Keys, where: str) -> str:
        key, name = spelled(given, WHO, where)
        if not isinstance(name, str):
            raise RowError(
                f"{where}.{key}", f"is missing. The message has: {', '.join(given)}" if name is None else "must be text"
            )
        role = role_of(name, self.roles)
        if role is None:
            raise RowError(f"{where}.{key}", unknown_role(name, self.roles), {"roles": self._unknown})
        return role

    def _look(self, items: Sequence[Any]) -> None:
        """Note the names of roles that nobody knows: all of a row are told at once."""
        before = None
        for item in items:
            name = (
                next((item[key] for key in WHO if isinstance(item.get(key), str)), None) if _is_object(item) else None
            )
            role = None if name is None else role_of(name, self.roles)
            if name is not None and role is None:
                role = self._unknown[name] = guessed(name, before)
            before = role or before

    def _message(self, role: str, given: Keys, said: _Content, where: str) -> Message:
        calls = self._calls(given, where) + (tuple(said.blocks.calls) if said.blocks else ())
        thoughts = _reasoning(given, said.blocks, where)
        content = said.content
        if role == "system" or role == "developer":
            self._declare(given, where)
            content = self.without_tools(content, f"{where}.{said.key}") if isinstance(content, str) else content
        if role == "assistant" and self.calls_in_text and isinstance(content, str) and not calls:
            content, calls = calls_of(content, self.calls_in_text, f"{where}.{said.key}", self.unread)
        if content is None and not calls:
            has = f"It has: {', '.join(given)}"
            raise RowError(f"{where}.{said.key}", f"is missing, and the message has no tool calls. {has}")
        if not (content is None or isinstance(content, str | list)):
            raise RowError(f"{where}.{said.key}", f"must be text or a list of parts, not {kind_of(content)}")
        name, id = optional(given, "name", where), _id(given, where)
        return Message(role, content, calls, thoughts, name, id, read_weight(given, where))

    def _calls(self, given: Keys, where: str) -> tuple[ToolCall, ...]:
        key, calls = spelled(given, CALLS, where)
        return () if says_nothing(calls) else read_calls(calls, f"{where}.{key}", self.unread)

    def _declare(self, given: Keys, where: str) -> None:
        key, tools = spelled(given, TOOLS, where)
        if not says_nothing(tools):
            self.tools = read_tools(tools, f"{where}.{key}")

    def without_tools(self, text: str, where: str) -> str:
        """Return a system prompt without the tools that it holds, where they are taken out of it, and declare them."""
        if not self.tools_in_system:
            return text
        text, found = tools_taken_from(text, where)
        if found and self.tools and found != self.tools:
            raise RowError(where, "declares other tools than the row does elsewhere: keep one of them")
        self.tools = found or self.tools
        return text

    # --- turns for what is only a part of the assistant's ---

    def _thought(self, given: Keys, where: str) -> _Said:
        key, content = spelled(given, (*WHAT, *REASONING), where)
        thought = one_text(content, f"{where}.{key}", self.unread, "\n\n")
        message = Message("assistant", None, reasoning_content=thought, weight=read_weight(given, where))
        return _Said(message, where, is_part=True)

    def _call(self, given: Keys, where: str) -> _Said:
        calls, weight = self._calls(given, where), read_weight(given, where)
        thoughts = _reasoning(given, None, where)
        key, content = spelled(given, WHAT, where)
        if not calls and content is None:
            raise RowError(f"{where}.{key}", "is missing, and the turn is a call")
        if not calls:
            calls = self._called(content, given, f"{where}.{key}")
        elif not says_nothing(content):
            raise RowError(f"{where}.{key}", "stands beside the call that the turn is; keep one of them")
        return _Said(Message("assistant", None, calls, thoughts, weight=weight), where, is_part=True)

    def _called(self, content: Any, given: Keys, where: str) -> tuple[ToolCall, ...]:
        unread = Unread()
        try:
            calls = read_calls(content, where, unread)
        except RowError as error:
            name = spelled(given, WHO, where)[1]
            way = f"To train it as it stands, write `roles: {{{name}: assistant}}` in the format"
            raise RowError(error.field, f"{error.reason}. {way}") from error
        if isinstance(content, str) and unread.found:
            raise RowError(where, f"holds what no call has: {', '.join(unread.found)}")
        self.unread.found.update(unread.found)
        return calls

    def _results(self, blocks: Blocks, given: Keys, where: str) -> Iterator[_Said]:
        if blocks.calls or blocks.thoughts:
            raise RowError(where, "holds the answer of a tool and a call: these are turns of two roles")
        if rest := [key for key in (*CALLS, *TOOLS, *REASONING, "name") if not says_nothing(given.get(key))]:
            raise RowError(f"{where}.{rest[0]}", "stands beside answers of tools, and nobody reads it there")
        weight, id = read_weight(given, where), _id(given, where)
        messages = [*blocks.messages()]
        if id is not None and [message.tool_call_id or id for message in messages] != [id]:
            raise RowError(f"{where}.tool_call_id", "stands beside parts that answer another call, or several")
        for message in messages:
            yield _Said(replace(message, weight=weight, tool_call_id=id or message.tool_call_id), where)


@dataclass(frozen=True, slots=True)
class _Content:
    """What a message says, and under which key."""

    key: str
    content: Any
    blocks: Blocks | None


def _is_object(item: Any) -> bool:
    return isinstance(item, Mapping)


def _plain(items: Sequence[Any]) -> list[Message] | None:
    """Return the messages of what most conversations are: a known role and a text each; None for all others."""
    first = items[0]
    is_chat = type(first) is dict and "role" in first
    who, what, roles = ("role", "content", _PLAIN) if is_chat else ("from", "value", _PLAIN_FROM)
    made = []
    for item in items:
        if type(item) is not dict:
            return None
        given = item if len(item) == 2 else present(item)
        name, text = given.get(who), given.get(what)
        if len(given) != 2 or type(text) is not str or type(name) is not str or name not in roles:
            return None
        made.append(Message(roles[name], text))
    return made


_ITEMS = ("message", "function_call", "function_call_output", "reasoning")


def _without_type(given: dict[str, Any]) -> dict[str, Any]:
    """Return an item of OpenAI's Responses API as a message: its `type` says what it is."""
    sort = given.get("type")
    if sort is None:
        return given
    rest = {key: value for key, value in given.items() if key != "type"}
    if sort == "message":
        return rest
    if "role" in given or "from" in given or not isinstance(sort, str):
        return given
    if sort not in _ITEMS and role_of(sort, {}) is not None:
        return {**rest, "role": sort}  # LangChain's: {"type": "human", "content": …}
    if sort == "function_call":
        call = {key: rest.pop(key) for key in ("call_id", "name", "arguments") if key in rest}
        return {**rest, "role": "tool_call", "tool_calls": [call]}
    if sort == "function_call_output":
        return {**_renamed(rest, call_id="tool_call_id", output="content"), "role": "tool"}
    if sort == "reasoning":
        key = "content" if says_nothing(rest.get("summary")) else "summary"
        return {**_renamed(rest, **{key: "content"}), "role": "reasoning"}
    return given


def _renamed(given: Keys, **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in given.items()}


def _reasoning(given: Keys, blocks: Blocks | None, where: str) -> str | None:
    key, _ = spelled(given, REASONING, where)
    said = optional(given, key, where)
    thoughts = blocks.reasoning if blocks else None
    if said and thoughts and said != thoughts:
        raise RowError(f"{where}.{key}", "is another thought than that in the parts: keep one of them")
    return thoughts or said


def _id(given: Keys, where: str) -> str | None:
    """Return the id of the call that a message answers."""
    key, value = spelled(given, IDS, where)
    if key == "tool_call_ids" and isinstance(value, list | tuple) and len(value) == 1:
        given = {key: value[0]}
    return optional(given, key, where)


def _joined(said: Sequence[_Said]) -> list[Message]:
    """Return the messages, thoughts and calls that stand in turns of their own joined to the assistant's turn.

    Two calls in a row are one turn: the model stops after the second, as it must at inference.
    """
    made: list[_Said] = []
    for part in said:
        last = made[-1] if made else None
        if last is not None and _go_together(last, part):
            made[-1] = _Said(_both(last, part), last.where, is_part=part.is_part)
        else:
            made.append(part)
    for part in made:
        if part.message.content is None and not part.message.tool_calls:
            raise RowError(part.where, "is a thought, and no turn of the assistant's follows it")
    return [part.message for part in made]


def _go_together(last: _Said, part: _Said) -> bool:
    """Whether `part` goes on with the turn of `last`: after a thought, or as a thought or a call of the same turn."""
    if last.message.role != "assistant" or part.message.role != "assistant":
        return False
    is_thought = last.is_part and not last.message.tool_calls
    goes_on = part.is_part and bool(part.message.tool_calls)
    return is_thought or goes_on


def _both(last: _Said, part: _Said) -> Message:
    """Return one message of two. Raises RowError where their loss weights differ."""
    first, second = last.message, part.message
    is_thought = first.content is None and not first.tool_calls
    if is_thought and first.weight is None:
        first = replace(first, weight=second.weight)
    if (1 if first.weight is None else first.weight) != (1 if second.weight is None else second.weight):
        raise RowError(part.where, f"is one turn with {last.where}, and is trained with another weight")
    thoughts = [text for text in (first.reasoning_content, second.reasoning_content) if text]
    return replace(
        first,
        content=second.content if first.content is None else first.content,
        tool_calls=first.tool_calls + second.tool_calls,
        reasoning_content="\n\n".join(thoughts) or None,
        name=first.name or second.name,
        tool_call_id=first.tool_call_id or second.tool_call_id,
    )
