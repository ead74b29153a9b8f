"""Learn from a few replies that a template renders how it writes replies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sftplug.data.parse.forms import NAME, ArgumentsForm, CallForm, Form, Forms, Part, Slot, ValueForm
from sftplug.data.parse.replies import Said, Situation
from sftplug.data.parse.values import Codec, ValueReader, escaped
from sftplug.data.render.call import PROBE
from sftplug.data.render.output import agreement
from sftplug.data.render.spans import SPECIAL
from sftplug.types.conversation import Message, ToolCall

# Words that no template has of its own. An id has nine characters, as Mistral's templates demand.
_CONTENT, _REASONING = "sftplugsays", "sftplugthinks"
_NAMES, _IDS, _KEYS = ("sftplug_one", "sftplug_two"), ("sftplugi1", "sftplugi2"), ("sftplug_a", "sftplug_b")
_TEXT, _NUMBER = 'sftplug "quotes"', 7391846
_JSON = '{"sftplug_a": "sftplug"}'
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A probe.",
            "parameters": {"type": "object", "properties": {key: {"type": "string"} for key in _KEYS}},
        },
    }
    for name in _NAMES
]
"""The tools of the calls in these replies, for templates that look them up."""
ANSWERED: tuple[dict[str, Any], ...] = (
    Message("assistant", "", (ToolCall(_NAMES[0], {_KEYS[0]: _TEXT}, _IDS[0]),)).to_dict(),
    {"role": "tool", "name": _NAMES[0], "tool_call_id": _IDS[0], "content": _CONTENT},
)
"""A call and its answer."""


class _Calls(NamedTuple):
    """How calls are given to the template."""

    with_id: bool
    as_text: bool
    named_by_id: bool = False

    def call(self, arguments: Mapping[str, Any], number: int = 0) -> ToolCall:
        """Return a call."""
        given = _JSON if self.as_text else arguments
        return ToolCall(_NAMES[number], given, self.id(number) if self.with_id else None)

    def id(self, number: int) -> str:
        """Return the id of a call."""
        return f"functions.{_NAMES[number]}:{number}" if self.named_by_id else _IDS[number]


_WAYS = (
    _Calls(True, False),
    _Calls(False, False),
    _Calls(True, True),
    _Calls(False, True),
    _Calls(True, False, True),  # where a template writes no name, an id may hold it
)


def learn(where: Situation) -> Forms:
    """Return how the template writes replies in this situation."""
    where = replace(where, parts=not _says(where) and _says(replace(where, parts=True)))
    spoken = [form for form in map(_form, *zip(*_spoken(where), strict=True)) if form is not None]
    call, calling = _learn_calls(where)
    stops = tuple(sorted(_stops(where, spoken, call), key=len, reverse=True))
    forms = tuple(_without_stop(form, stops) for form in [*calling, *spoken])
    around = [literal for form in forms for literal in _around_thought(form)]
    inside = [*call.literals, call.between or ""] if call is not None else list(_unread(where))
    written = [literal for form in forms for literal in form.literals]
    marks, thought_marks = _marks([*written, *inside], stops), _marks(around, stops)
    return Forms(forms, call, stops, marks, thought_marks, bool(call is None and inside), where.parts)


def _says(where: Situation) -> bool:
    """Whether the template writes what an assistant says."""
    said = where.said(Message("assistant", _CONTENT))
    return said is not None and _CONTENT in said.text


def _spoken(where: Situation) -> Iterator[tuple[Said | None, dict[Slot, str]]]:
    """Yield replies without calls, and what they say."""
    for reasoning, content in ((_REASONING, _CONTENT), (_REASONING, ""), (None, _CONTENT)):
        said = where.said(Message("assistant", content, reasoning_content=reasoning))
        yield said, _filled(reasoning, content)


def _filled(reasoning: str | None, content: str, calls: str = "") -> dict[Slot, str]:
    slots: dict[Slot, str | None] = {"reasoning": reasoning, "content": content, "calls": calls}
    return {slot: text for slot, text in slots.items() if text}


def _form(said: Said | None, filled: Mapping[Slot, str]) -> Form | None:
    """Return the form of a reply that says what is `filled` in; None where the text does not hold each once."""
    if said is None or any(said.text.count(text) != 1 for text in filled.values()):
        return None
    slots = sorted(filled, key=lambda slot: said.text.index(filled[slot]))
    edges = [0]
    for slot in slots:
        begin = said.text.index(filled[slot])
        edges += [begin, begin + len(filled[slot])]
    edges.append(len(said.text))
    literals = tuple(said.text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    # Between two texts of which nothing marks the border, there is none to find.
    return Form(tuple(slots), literals, said.continues) if all(literals[1:-1]) else None


# --- calls ------------------------------------------------------------------------------------------------------------


def _learn_calls(where: Situation) -> tuple[CallForm | None, list[Form]]:
    """Return how calls are written, and the forms of the replies that hold any."""
    for way in _WAYS:
        shown = _shown(where, way)
        if shown is None or (way.with_id and not way.as_text and _IDS[0] not in shown and _shown(where, _WAYS[1])):
            continue  # an id that is not written is not needed either, unless the template demands it
        found = _call_form(where, way, shown)
        if found is not None:
            form, written = found
            return form, list(_calling(where, way, written))
    return None, []


def _shown(where: Situation, way: _Calls) -> str | None:
    """Return what the model must write to call a tool; None where the template refuses, or the text lacks the call."""
    said = where.said(Message("assistant", "", (way.call({_KEYS[0]: _TEXT}),)))
    wanted = [_NAMES[0], _JSON if way.as_text else _KEYS[0], *([way.id(0)] if way.named_by_id else [])]
    return said.text if said is not None and all(text in said.text for text in wanted) else None


def _unread(where: Situation) -> Iterator[str]:
    """Yield replies with calls that are written, but not so that name and arguments could be found, as Kimi K2's."""
    plain = where.said(Message("assistant", ""))
    for way in _WAYS:
        said = where.said(Message("assistant", "", (way.call({_KEYS[0]: _TEXT}),)))
        if said is not None and (plain is None or said.text != plain.text):
            yield said.text


def _call_form(where: Situation, way: _Calls, shown: str) -> tuple[CallForm, str] | None:
    """Return the form of a call, and the one in `shown` as it is written there."""
    arguments = None
    begin, end = shown.index(_JSON) if way.as_text else -1, -1
    if way.as_text:
        end = begin + len(_JSON)
    else:
        learned = _learn_arguments(where, way, shown)
        if learned is None:
            return None
        arguments, begin, end = learned
    places: dict[Part, tuple[int, int]] = {"arguments": (begin, end)}
    named: tuple[tuple[Part, str], ...] = (
        (("id", way.id(0)),) if way.named_by_id else (("name", _NAMES[0]), ("id", _IDS[0]))
    )
    for part, text in named:
        if text in shown:
            places[part] = (shown.index(text), shown.index(text) + len(text))
    parts = sorted(places, key=lambda part: places[part])
    edges = [edge for part in parts for edge in places[part]]
    literals = [shown[low:high].replace(_NAMES[0], NAME) for low, high in zip(edges[1:-1:2], edges[2::2], strict=True)]
    written = shown[edges[0] : edges[-1]]
    between = _between(where, way, written)
    form = CallForm(tuple(parts), tuple(literals), between, arguments, way.with_id, shown, way.named_by_id)
    return (form, written) if all(literals) else None


def _between(where: Situation, way: _Calls, first: str) -> str | None:
    """Return what stands between two calls; None where the template does not write both."""
    calls = tuple(way.call({_KEYS[0]: _TEXT}, number) for number in (0, 1))
    said = where.said(Message("assistant", "", calls))
    second = first.replace(way.id(0), way.id(1)).replace(_NAMES[0], _NAMES[1])
    if said is None or first not in said.text:
        return None
    begin = said.text.index(first) + len(first)
    at = said.text.find(second, begin)
    return said.text[begin:at] or None if at >= 0 else None


def _calling(where: Situation, way: _Calls, written: str) -> Iterator[Form]:
    """Yield the forms of replies with calls: with a thought first, and last those whose words stand beside calls.

    Words may look like calls, so that "<call a> <call b>" could be words and a call: they are two calls.
    """
    call = (way.call({_KEYS[0]: _TEXT}),)
    for reasoning, content in itertools.product((_REASONING, None), ("", _CONTENT)):
        said = where.said(Message("assistant", content, call, reasoning_content=reasoning))
        form = _form(said, _filled(reasoning, content, written))
        if form is not None:
            yield form


# --- arguments --------------------------------------------------------------------------------------------------------


def _learn_arguments(where: Situation, way: _Calls, shown: str) -> tuple[ArgumentsForm, int, int] | None:
    """Return how arguments are written, and where those in `shown` begin and end."""
    (key, other_key), pairs = _KEYS, ((_TEXT, _NUMBER), (_NUMBER, _TEXT))
    texts = [_called(where, way, given) for given in ({}, *({key: one, other_key: two} for one, two in pairs))]
    if any(text is None for text in texts):
        return None
    empty, mixed, other = map(str, texts)
    codec = _codec(shown)
    if codec is None:
        return None
    start = shown.index(_KEYS[0])
    # Of '{"name": "f", "arguments": {}}' and '{"name": "f", "arguments": {"a": 1}}' the arguments are what stands
    # between what both begin with and what both end in: nothing, and '"a": 1'.
    first = agreement(empty, shown[:start])
    last = agreement(empty[first:][::-1], shown[start:][::-1])
    one, two, swapped = (text[first : len(text) - last] for text in (shown, mixed, other))
    text = escaped(_TEXT, codec)
    single = _cut(one, [_KEYS[0], text])
    pair = _cut(two, [_KEYS[0], text, _KEYS[1], str(_NUMBER)])
    turned = _cut(swapped, [_KEYS[0], str(_NUMBER), _KEYS[1], text])
    if single is None or pair is None or turned is None:
        return None
    forms = ValueForm(pair[1], pair[2], turned[4]), ValueForm(turned[1], turned[2], pair[4])
    following = empty[len(empty) - last :]
    reader = _reader(*forms, codec)
    none = empty[first : len(empty) - last]
    return ArgumentsForm(none, single[0], *forms, codec, reader, following), first, len(shown) - last


def _called(where: Situation, way: _Calls, arguments: Mapping[str, Any]) -> str | None:
    said = where.said(Message("assistant", "", (way.call(arguments),)))
    return None if said is None else said.text


def _codec(shown: str) -> Codec | None:
    """Return how the text argument is written in `shown`; None if it is written in neither way."""
    ways: tuple[Codec, ...] = ("raw", "json")
    return next((codec for codec in ways if escaped(_TEXT, codec) in shown), None)


def _cut(text: str, parts: Sequence[str]) -> list[str] | None:
    """Return what stands around `parts`, which stand in this order in `text`; None if they do not."""
    found, at = [], 0
    for part in parts:
        begin = text.find(part, at)
        if begin < 0:
            return None
        found.append(text[at:begin])
        at = begin + len(part)
    return [*found, text[at:]]


def _reader(text: ValueForm, other: ValueForm, codec: Codec) -> ValueReader:
    """Return the reader of values; what stands around a text and around no number is the template's quotation mark."""
    opening = text.before.removeprefix(other.before)
    closing = text.between.removesuffix(other.between)
    quoted = codec == "json" or opening in ("", '"', "'") or not closing or not text.before.startswith(other.before)
    return ValueReader() if quoted else ValueReader(opening, closing)


# --- stops and marks --------------------------------------------------------------------------------------------------


def _stops(where: Situation, spoken: Sequence[Form], call: CallForm | None) -> set[str]:
    """Return what ends a reply: the template's own stops, what the next message prints, and the model's end tokens."""
    found = {token for token in where.end_tokens if token}
    plain = where.said(Message("assistant", _CONTENT))
    if plain is not None:
        found.add(plain.text.rpartition(_CONTENT)[2].strip() if plain.ends else "")
        found |= _printed_next(where, Message("assistant", _CONTENT), plain, dict(PROBE))
    if call is not None:
        way = _Calls(call.with_id, call.arguments is None, call.named_by_id)
        message = Message("assistant", "", (way.call({_KEYS[0]: _TEXT}),))
        alone = where.said(message)
        answer = {"role": "tool", "name": _NAMES[0], "tool_call_id": _IDS[0], "content": _CONTENT}
        found |= _printed_next(where, message, alone, answer) if alone is not None else set()
    return found - {""}


def _printed_next(where: Situation, message: Message, alone: Said, following: Mapping[str, Any]) -> set[str]:
    """Return the stop that the message after a reply prints, if it is that which does so."""
    said = where.said(message, following)
    if said is None or not said.ends or not said.text.startswith(alone.text):
        return set()
    return {said.text.removeprefix(alone.text).strip()}


def _without_stop(form: Form, stops: Sequence[str]) -> Form:
    return next((form.without(stop) for stop in stops if form.literals[-1].endswith(stop)), form)


def _around_thought(form: Form) -> Sequence[str]:
    """Return what stands before and after the thought of a reply without calls."""
    if "reasoning" not in form.slots or "calls" in form.slots:
        return ()
    at = form.slots.index("reasoning")
    return form.literals[at : at + 2]


def _marks(literals: Iterable[str], stops: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*(mark for text in literals for mark in SPECIAL.findall(text)), *stops]))


def shortened(where: Situation) -> Situation:
    """Return the situation with the probe's tools, and of its messages only those from the last question on."""
    users = [index for index, message in enumerate(where.messages) if message.get("role") == "user"]
    messages = where.messages[users[-1] :] if users else where.messages
    return replace(where, messages=messages, tools=TOOLS if where.tools else None)
