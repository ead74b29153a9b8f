"""Which rows a format takes for its own, where a recipe names none: by columns and by what is in them.

One bad row among many must not hide what the others are, so a column counts where most rows fit; what does not fit is
refused when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sftplug import Recognized, RowError
from sftplug_formats.calls import value_of_text
from sftplug_formats.roles import role_of
from sftplug_formats.spelling import in_rows

Rows = Sequence[Mapping[str, Any]]
_WHO, _WHAT = ("role", "from"), ("content", "value", "text", "parts", "tool_calls", "function_call", "type")


def turns(rows: Rows, usual: str, who: str, noun: str) -> Recognized | str:
    """Return whether one column holds lists of turns that are spelled with the key `who`.

    `usual` is the column where the format looks by itself; it is preferred where several hold turns, for what else is
    there is told as not read.
    """
    found = list(turn_columns(rows, who))
    if prompt := next(iter(prompts(rows)), None):
        return f"`{prompt[0]}` ends before the reply, which stands in `{prompt[1]}`"
    if usual in found:
        return Recognized(f"column {usual}")
    if {"chosen", "rejected"} <= {*found} <= {"prompt", "chosen", "rejected"}:
        if "prompt" in columns(rows) and most(rows, "chosen", _is_reply):
            return "`chosen` begins with the reply to `prompt`"
        return Recognized("column chosen, what was preferred", {"column": "chosen"})
    if len(found) == 1:
        return Recognized(f"column {found[0]}", {"column": found[0]})
    if found:
        return f"the columns {' and '.join(found)} hold {noun}: `column` says which is meant"
    if answering := answers(rows):
        return f"{answering}, and `process: message_trees` beside `path` makes conversations of them"
    return f"no column holds a list of {noun}"


def answers(rows: Rows) -> str:
    """Return in words that rows are messages that answer each other, or trees of these; nothing where they are not."""
    if "parent_id" in columns(rows) and has_text(rows, "role"):
        return "each row seems to be a message that answers another (`parent_id`)"
    if most(rows, "prompt", lambda value: isinstance(value, Mapping) and "replies" in value):
        return "each row seems to be a tree of messages (`prompt`, `replies`)"
    return ""


def turn_columns(rows: Rows, *who: str) -> Iterator[str]:
    """Yield the columns that hold lists of turns in most rows, whose turn it is under one of the keys `who`."""
    for column in columns(rows):
        if most(rows, column, lambda value: _are_turns(value, who or _WHO)):
            yield column


REPLIES = (
    ("prompt", "completion"),
    ("input", "output"),
    ("messages", "completion"),
    ("conversations", "chosen"),
    ("messages", "chosen"),
)
"""Columns of turns and of the reply to them; `input` and `output` are those of Nemotron's sets, `conversations` and
`chosen` LLaMA-Factory's."""


def prompts(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield columns of turns that end before the assistant's, each with the column that holds its reply."""
    for column, reply in REPLIES:
        if most(rows, column, _is_unanswered) and most(rows, reply, _is_one_reply):
            yield column, reply


def columns(rows: Rows) -> list[str]:
    """Return the columns of the rows, in their order."""
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def most(rows: Rows, column: str, fits: Callable[[Any], bool]) -> bool:
    """Whether most rows have something in `column` that fits."""
    return 2 * sum(row.get(column) is not None and fits(row[column]) for row in rows) > len(rows)


def is_text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def is_said(value: Any) -> bool:
    """Whether a value can be said: a text, or a number, as answers to sums are."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def has_text(rows: Rows, *names: str) -> bool:
    """Whether each of these columns holds text in most rows."""
    return all(most(rows, name, is_text) for name in names)


def lacking(rows: Rows, *names: str) -> str:
    """Return the sentence that says which of these columns hold no text."""
    return f"no text in {', '.join(f'`{name}`' for name in names if not has_text(rows, name))}"


def _is_unanswered(value: Any) -> bool:
    turns = _listed(value)
    names = [turns[-1].get(key) for key in _WHO] if _are_turns(turns, _WHO) else [""]
    return not any(isinstance(name, str) and role_of(name, {}) in ("assistant", None) for name in names)


def _is_reply(value: Any) -> bool:
    """Whether turns begin with the assistant's."""
    turns = _listed(value)
    names = [turns[0].get(key) for key in _WHO] if turns and isinstance(turns[0], Mapping) else []
    return any(isinstance(name, str) and role_of(name, {}) == "assistant" for name in names)


def _is_one_reply(value: Any) -> bool:
    """Whether a value is the text of a reply, or the one turn that is it."""
    return isinstance(value, str) or _is_reply([value])


def preferred(rows: Rows) -> str:
    """Return what a prompt and the preferred of two replies to it are: texts or messages; nothing for other rows."""
    if has_text(rows, "prompt", "chosen", "rejected") and not most(rows, "chosen", _are_marked):
        return "of text"
    if most(rows, "chosen", _is_reply) and (has_text(rows, "prompt") or "prompt" in turn_columns(rows)):
        return "of messages"
    return ""


def _are_marked(value: str) -> bool:
    """Whether a text is a transcript, which says whose turns its parts are."""
    return "\n\nAssistant:" in value


def _are_turns(value: Any, who: Sequence[str]) -> bool:
    """Whether a list holds turns: nearly all are, for one that lacks something is told with what it lacks."""
    turns = _listed(value)
    fit = sum(_is_turn(turn, who) for turn in turns)
    return bool(turns) and 2 * fit > len(turns) and all(isinstance(turn, Mapping | str) for turn in turns)


def listed_turns(value: Any) -> Sequence[Any] | None:
    """Return turns that are a list, or the JSON text of one; None for what is neither, a mere text among others."""
    if isinstance(value, list | tuple):
        return value
    turns = _listed(value)
    return turns if _are_turns(turns, _WHO) else None


def _listed(value: Any) -> Sequence[Any]:
    """Return a list, or the one that a text or an object of lists stands for; an empty one for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = value_of_text(value, "")
        except RowError:
            return ()
    value = in_rows(value)
    return value if isinstance(value, list | tuple) else ()


def _is_turn(turn: Any, who: Sequence[str]) -> bool:
    if not isinstance(turn, Mapping):
        return False
    given = {key for key, value in turn.items() if value is not None}
    return bool(given & set(who)) and bool({*map(str, turn)} & set(_WHAT))
