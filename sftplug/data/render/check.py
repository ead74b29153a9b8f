"""The check that refuses what the spans cannot vouch for.

An *error* means that the mask may be wrong, or that something the row holds is not in the text. A *policy* finding
means that the spans follow the definition, but the user should decide whether to train on them as they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sftplug.data.render.pieces import REASONING, Layout, Piece
from sftplug.data.render.spans import uncovered

QUOTED = 60
_THOUGHT_END = "</think>"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the check saw."""

    kind: str
    severity: Literal["error", "policy"]
    message: int | None
    """Index of the message it is about."""
    text: str
    """A sentence for the user, with the offending text quoted."""
    start: int = -1
    end: int = -1
    """Where in the rendered text, when that is known."""


def quote(text: str) -> str:
    """Return `text` quoted on one line, shortened in the middle."""
    return repr(text if len(text) <= QUOTED else text[: QUOTED // 2] + " … " + text[-QUOTED // 2 :])


def check_spans(layout: Layout, message: int, spans: Sequence[tuple[int, int]], prefill: int) -> Iterator[Finding]:
    """Yield errors for spans of `message` that hold what is not its own, or do not hold what is.

    `prefill` is where the generation prompt ends: own text before it is the prompt's, and is not trained.
    """
    for start, end in spans:
        for piece in layout.between(start, end):
            if piece.field and piece.message != message:
                what = quote(layout.text[max(piece.start, start) : min(piece.end, end)])
                text = f"message {message}: text of message {piece.message} stands inside its span: {what}."
                yield Finding("foreign_text", "error", message, text, piece.start, piece.end)
    # With a prompt up to 40 and a span from 40 to 55: own text ahead of 40 is the prompt's (a prefilled "<think>"), and
    # own text beyond 55 would never be trained.
    outside = uncovered(layout.content(message), [(0, prefill), *spans] if spans else [])
    for piece in outside:
        if layout.text[piece.start : piece.end].strip():
            what = quote(layout.text[piece.start : piece.end])
            text = f"message {message}: its text {what} stands outside of its span."
            yield Finding("outside_span", "error", message, text, piece.start, piece.end)


def check_interruptions(layout: Layout, message: int, tools: frozenset[int]) -> Iterator[Finding]:
    """Yield an error for text of others inside the turn of `message`; `tools` are the messages that may stand there.

    A tool's answer inside the model's turn is text of the environment. After it only words of the message itself are
    sure to be the model's; what the template alone adds there could be either's.
    """
    content = layout.content(message)
    # What the template writes ahead of its first own text is its header, which may stand anywhere.
    own = [piece for piece in layout.of(message) if content and piece.start >= content[0].start]
    interrupted = False
    for piece in layout.between(own[0].start, own[-1].start) if own else ():
        if piece.start > own[0].start and piece.field and piece.message != message:
            interrupted = True
            if piece.message not in tools:
                what = quote(layout.text[piece.start : piece.end])
                text = f"message {message}: text of message {piece.message} stands inside its turn: {what}."
                yield Finding("foreign_text", "error", message, text, piece.start, piece.end)
    # "Let me look." [the tool's answer] "<|eot|>": is that the stop of the model's turn, or of the tool's?
    if interrupted and not own[-1].field and not any(piece.end == own[-1].start for piece in content):
        start, end = own[-1].start, own[-1].end
        if layout.text[start:end].strip():
            what = quote(layout.text[start:end])
            text = f"message {message}: after text of the environment the template adds {what}: whose is it?"
            yield Finding("foreign_text", "error", message, text, start, end)


def check_iterations(layout: Layout, message: int) -> Iterator[Finding]:
    """Yield an error for text of the assistant's `message` that the template prints while working on another one."""
    for piece in layout.content(message):
        if piece.within not in (None, message) and piece.end > piece.start:
            what = quote(layout.text[piece.start : piece.end])
            text = f"message {message}: the template prints its text {what} while working on message {piece.within}."
            yield Finding("outside_iteration", "error", message, text, piece.start, piece.end)
            return


def check_questions(layout: Layout, message: int, start: int, users: tuple[int, ...]) -> Iterator[Finding]:
    """Yield an error when what users say before the turn of `message` stands after its `start`, or the reverse."""
    # The order is nearly always right, which one look tells; the message that is wrong is searched for only then.
    for user in () if layout.in_order(users, message, start) else users:
        pieces = [piece for piece in layout.content(user) if piece.end > piece.start]
        if pieces and (pieces[0].start >= start) == (user < message):
            where = "after" if user < message else "before"
            text = f"message {message}: the template prints message {user} {where} it, in the wrong order."
            yield Finding("wrong_order", "error", message, text, pieces[0].start, pieces[0].end)
            return


def check_order(spans: Sequence[tuple[int, int, int]]) -> Iterator[Finding]:
    """Yield an error for each span (start, end, message) that overlaps the one before it, or comes out of order."""
    for (_, end, before), (start, _, message) in itertools.pairwise(spans):
        if start < end:
            text = f"message {message}: its span starts before that of message {before} ends."
            yield Finding("overlap", "error", message, text, start, end)


def missing_texts(layout: Layout, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str, str]]:
    """Yield (message, field, text) for everything that messages say and the text does not hold."""
    for index, message in enumerate(messages):
        for key, text in lost_texts(message, layout.content(index), layout.text):
            yield index, key, text
        calls = message.get("tool_calls") or ()
        # Calls are written as JSON, as tags or in words, so names and arguments are looked for in all that belongs to
        # the message, the template's own text for it included.
        said = "".join(layout.text[piece.start : piece.end] for piece in layout.of(index)) if calls else ""
        for number, call in enumerate(calls):
            lost_argument = _lost_of_call(call, said)
            if lost_argument is not None:
                yield index, f"tool_calls[{number}]", lost_argument


def lost_texts(message: Mapping[str, Any], pieces: Sequence[Piece], whole: str) -> Iterator[tuple[str, str]]:
    """Yield (field, text) for every text of `message` that the `whole` text, in which it has `pieces`, does not hold.

    Of a content that loses only what stands up to its last ``</think>``, the field is ``thoughts``.
    """
    for field, text in texts_of(message):
        lost = _lost_until(text, [piece for piece in pieces if piece.field == field], whole)
        if lost:
            # Of "Hm.</think>Yes" a template may print "Yes" alone: all that is lost ends by the tag.
            thoughts = text.rfind(_THOUGHT_END)
            is_thought = thoughts >= 0 and lost <= thoughts + len(_THOUGHT_END)
            yield "thoughts" if is_thought else field, text


def texts_of(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, text) for every text of a message."""
    content = message.get("content")
    if isinstance(content, str):
        yield "content", content
    elif isinstance(content, list | tuple):
        for number, part in enumerate(content):
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield f"content[{number}].text", part["text"]
    if isinstance(message.get(REASONING), str):
        yield REASONING, message[REASONING]


def _lost_until(text: str, pieces: Sequence[Piece], whole: str) -> int:
    """Return where the last lost part of `text` ends, 0 when nothing but white space is lost.

    `pieces` are what is in the `whole` text of it, in order. Between the pieces, what was changed on the way (other
    letters) has no offsets and counts as there; so does what the template put back (the comma that it split at, the
    tags around a thought).
    """
    if not text.strip():
        return 0
    lost = uncovered([Piece(0, len(text), None, "", 0, None)], sorted(_covered(text, pieces, whole)))
    return max(
        (
            part.start + len(text[part.start : part.end].rstrip())
            for part in lost
            if text[part.start : part.end].strip()
        ),
        default=0,
    )


def _covered(text: str, pieces: Sequence[Piece], whole: str) -> Iterator[tuple[int, int]]:
    # Pieces at offset 0 (5 characters) and 8 (4): the characters 5 to 8 are lost, unless a changed piece, which has no
    # offset, stands between the two, or the template itself wrote them there.
    reached, changed, at = 0, False, -1
    for piece in pieces:
        if piece.offset < 0:
            changed = changed or piece.end > piece.start
            continue
        if changed or _put_back(text[reached : piece.offset], whole, at, piece.start):
            yield reached, max(reached, piece.offset)
        reached, changed, at = piece.offset + piece.end - piece.start, False, piece.end
        yield piece.offset, reached
    if changed:
        yield reached, len(text)


def _put_back(lost: str, whole: str, at: int, end: int) -> bool:
    """Whether `lost`, white space around it left out, is what the template wrote from `at` to `end`.

    `at` is -1 ahead of the first piece, where what stands before `end` has to end in it.
    """
    lost = lost.strip()
    if at >= 0 or not lost:
        return not lost or whole[at:end].strip() == lost
    while end and whole[end - 1].isspace():
        end -= 1
    return whole.endswith(lost, 0, end)


def _lost_of_call(call: Any, said: str) -> str | None:
    """Return the first name or argument of `call` that `said` does not hold, raw or as JSON."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    for text in _strings(function):
        if text.strip() and text not in said and not _holds_json(text, said):
            return text
    return None


def _strings(function: Any) -> Iterator[str]:
    if isinstance(function, str):
        yield function
    elif isinstance(function, Mapping):
        for value in function.values():
            yield from _strings(value)
    elif isinstance(function, list | tuple):
        for value in function:
            yield from _strings(value)
    # Not booleans: they are written ``true``, ``True`` or ``yes``.
    elif isinstance(function, int | float) and not isinstance(function, bool):
        yield json.dumps(function)


def _holds_json(text: str, said: str) -> bool:
    """Whether `said` holds `text` as a JSON string, or, where it is JSON itself, every string in it."""
    if any(json.dumps(text, ensure_ascii=ascii_only)[1:-1] in said for ascii_only in (False, True)):
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list) and _lost_of_call({"function": value}, said) is None
