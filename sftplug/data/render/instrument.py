"""The environment that a chat template runs in, so that its output says, piece by piece, who wrote it.

The template's source is not touched. Its syntax tree gets marks (see `marks`), so that the text which the template
itself writes can be given to the message it is working on. The few operations that would lose the runs of a `Traced`
string (``~``, ``%``, `join`, `format`, `tojson`, buffers of macros and blocks) are replaced by ones that keep them.
What any other filter, method or printed list makes of a message's text is followed where it stands there unchanged,
and otherwise still known to come from that message. Everything else is transformers' own environment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.utils import _PassArg
from markupsafe import Markup

from sftplug.data.render.bounds import BoundedEnvironment, without_jinja_s
from sftplug.data.render.budget import ITEM, Budget
from sftplug.data.render.provenance import (
    GIVEN,
    MENTIONED,
    Active,
    Safe,
    TextRun,
    Traced,
    concat,
    derived,
    follow,
    is_said,
    percent,
    place,
    runs_of,
    shown,
    substitute,
    traced_in,
)

_PLAIN = frozenset({str, bytes, Markup, Safe})
"""Types of text that know nothing of runs."""
_CHOOSING = frozenset({"first", "last", "min", "max", "default", "d", "attr", "random", "map", "list", "items"})
"""Filters that return one of the values they are given, or an iterator over them."""


_TOJSON = {"ensure_ascii": False, "indent": None, "separators": None, "sort_keys": False}
"""Arguments of transformers' `tojson`, in their order, with their defaults."""


@cache
def official_environment() -> jinja2.Environment:
    """Return transformers' own environment, of which ours are copies."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template("").environment  # type: ignore[no-any-return]


class TracedEnvironment(BoundedEnvironment):
    """The environment of chat templates, keeping track of who wrote what."""

    def __init__(self, like: jinja2.Environment, budget: Budget) -> None:
        """Copy the filters, tests and globals of `like`, transformers' own environment."""
        super().__init__(budget, trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.active = self.new_active()
        self.owners: dict[int, int] = {}
        """id() of a message, or of anything within one -> index of the message."""
        self.given: set[int] = set()
        """id() of what the row gives beside its messages, and of anything within that."""
        # Jinja's compiled code joins with `environment.concat` what a macro or block has printed: a plain join has no
        # runs.
        self.concat = lambda parts: concat(parts, self.active)  # type: ignore[method-assign]
        known = {name: self._following(name, function) for name, function in like.filters.items()}
        # Ours come last: they know where each run goes, while `_following` can only search the result for what went in.
        self.filters.update({**known, **_filters(self)})
        self.tests.update(like.tests)
        self.globals.update(like.globals)
        self.bound()

    def new_active(self) -> Active:
        """Return the record of what a render is working on."""
        return Active()

    def trace(self, text: str, runs: list[TextRun]) -> Traced:
        """Return the `text` of a message as one that remembers where it came from."""
        return Traced(text, runs, self.active)

    def printed(self, value: Any) -> Any:
        """Return what is printed of `value`, as a text with runs where it holds any."""
        self.budget.printed(value)
        return value if isinstance(value, str) else shown(value, self.active)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Keep the runs through ``"…".format(…)``, which the sandbox wraps."""
        if getattr(value, "__name__", "") not in ("format", "format_map"):
            return None
        # The sandbox returns `type(pattern)(formatted)`, and a Traced cannot be made of a text alone: it gets a plain
        # pattern.
        owner = getattr(value, "__self__", None)
        if isinstance(owner, Traced):
            value = getattr(str.__str__(owner), value.__name__, None)
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def traced_format(*args: Any, **kwargs: Any) -> str:
            def render(given: Iterator[str]) -> str:
                return str(wrapped(*substitute(args, given), **substitute(kwargs, given)))

            return place(render, list(traced_in((args, kwargs))), self.active, opaque=owner or "")

        # `wrapped` has counted what it costs, so `call` must not count it once more.
        traced_format.counts_itself = True  # type: ignore[attr-defined]
        return traced_format

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep the runs through methods of plain strings: ``", ".join(parts)``, ``"<q>".replace("q", content)``."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if type(owner) is str and (name == "join" or any(isinstance(item, Traced) for item in args)):
            function = getattr(Traced(owner, runs_of(owner, self.active), self.active), name)
        result = super().call(context, function, *args, **kwargs)
        return self.followed(result, (owner, *args) if isinstance(owner, str) else args, without_jinja_s(kwargs))

    def followed(self, result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return `result` with what can be said of its runs, if it is a text that was made from texts of messages."""
        if type(result) not in _PLAIN:
            return result
        self.budget.deep((args, kwargs))
        parts = list(traced_in((args, kwargs)))
        if not parts:
            return result
        if isinstance(result, bytes):
            raise TypeError("it turns the text of a message into bytes, which cannot be followed")
        given = [item for item in (*args, *kwargs.values()) if isinstance(item, Traced)]
        if len(given) < len(parts):
            return derived(result, parts, self.active)  # made from a list, say: what stands where, nobody knows
        return follow(result, parts, self.active)

    def _following(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter of Jinja's with what can be said of the runs of its result."""
        # Some filters get Jinja's context or environment first, which holds no argument of the template's.
        first = _PassArg.from_obj(function) is not None
        if name in _CHOOSING:
            return function

        def following(*args: Any, **kwargs: Any) -> Any:
            return self.followed(function(*args, **kwargs), args[1:] if first else args, kwargs)

        if first:
            following.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return following

    def owner_of(self, value: Any) -> int | None:
        """Return the index of the message that `value` is, or is part of, or was made from."""
        # A stack, and no recursion: a row that is nested a thousand deep would exhaust Python's own.
        waiting = [value]
        while waiting:
            item = waiting.pop()
            known = self.owners.get(id(item))
            if known is None and isinstance(item, Traced):
                known = next((run.message for run in runs_of(item, self.active) if is_said(run)), None)
            if known is not None:
                return known
            parts = item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
            if parts:
                self.budget.charge(ITEM * len(parts))
                waiting += reversed([*parts])
        return None


class PlainEnvironment(BoundedEnvironment):
    """The environment of chat templates as transformers has it, with bounds."""

    def __init__(self, like: jinja2.Environment, budget: Budget) -> None:
        """Copy the filters, tests and globals of `like`, transformers' own environment."""
        super().__init__(budget, trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters.update(like.filters)
        self.tests.update(like.tests)
        self.globals.update(like.globals)
        self.bound()


class _Generation(Extension):
    """``{% generation %}`` passes its body through; where it stands says nothing that the check relies on."""

    tags = {"generation"}  # noqa: RUF012 - the name that Jinja asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


# --- filters ----------------------------------------------------------------------------------------------------------


def _filters(environment: TracedEnvironment) -> dict[str, Callable[..., Any]]:
    return {**_marks(environment), **_operations(environment)}


def _marks(environment: TracedEnvironment) -> dict[str, Callable[..., Any]]:
    """Return what the marks in the tree call: which message is active from here on."""
    active = environment.active

    def mark(value: Any) -> Any:
        owner = environment.owner_of(value)
        # Every loop is marked, `{% for tool in tools %}` too: what belongs to no message leaves the active one as it
        # is.
        active.message = active.message if owner is None else owner
        return value

    def mark_item(container: Any, index: Any) -> None:
        if isinstance(container, list | tuple) and isinstance(index, int) and -len(container) <= index < len(container):
            mark(container[index])

    def mark_argument(value: Any) -> None:
        if active.message is None:
            mark(value)

    def push(_: Any) -> None:
        active.stack.append(active.message)

    def pop(_: Any) -> None:
        active.message = active.stack.pop()

    return {
        "sftplug_mark": mark,
        "sftplug_mark_item": mark_item,
        "sftplug_mark_argument": mark_argument,
        "sftplug_push": push,
        "sftplug_pop": pop,
    }


def _operations(environment: TracedEnvironment) -> dict[str, Callable[..., Any]]:
    """Return what stands in for operations that would lose the runs of a traced string."""
    active = environment.active

    def own(value: Any) -> Any:
        if isinstance(value, Traced) and len(value._runs) > 1 and any(map(_is_mentioned, value._runs)):
            return own_here(value)  # it was put where it will be printed, and not only remembered
        return Traced(value, runs_of(value, active), active) if type(value) is str else value

    def own_here(value: Any) -> Any:
        if isinstance(value, Traced) and active.message is not None:
            runs = [run if run.within is not None else run._replace(within=active.message) for run in value._runs]
            return type(value)(value, runs, active)
        return Traced(value, runs_of(value, active), active) if type(value) is str else value

    def join(value: Iterable[Any], d: str = "", attribute: Any = None) -> str:
        get = _attribute(environment, attribute)
        return Traced(d, runs_of(d, active), active).join([shown(get(item), active) for item in value])

    return {
        "sftplug_own": own,
        "sftplug_own_here": own_here,
        "sftplug_concat": lambda first, *rest: concat((first, *rest), active),
        "sftplug_percent": lambda left, right: _percent(left, right, active),
        "join": join,
        "format": lambda value, *args, **kwargs: percent(shown(value, active), kwargs or args, active),
        "tojson": lambda value, *args, **options: _tojson(
            value, {**dict(zip(_TOJSON, args, strict=False)), **options}, environment
        ),
        # Markup of a traced string would lose its runs; of the template's own it escapes what is added to it.
        "safe": lambda value: value if isinstance(value, Traced) else Safe(value),
    }


def _is_mentioned(run: TextRun) -> bool:
    return run.field.startswith(MENTIONED)


def _attribute(environment: jinja2.Environment, attribute: Any) -> Callable[[Any], Any]:
    return (lambda item: item) if attribute is None else (lambda item: environment.getitem(item, attribute))


def _percent(left: Any, right: Any, active: Active) -> Any:
    return percent(left, right, active) if isinstance(left, str) else left % right


def _tojson(value: Any, options: Mapping[str, Any], environment: TracedEnvironment) -> Traced:
    """Return the JSON text of `value`, as transformers' filter writes it, with the runs of the strings in it."""
    settings = {**_TOJSON, **options}
    owners = _owners_in(value, environment)
    owner = next(iter(owners), None)
    if id(value) in environment.given or (len(owners) == 1 and owner is not None and not _holds_parts(value)):
        # All of it is of one message, or of no message but of the row: braces, keys and numbers too.
        text = json.dumps(value, **settings)
        field = GIVEN if owner is None else _field_of(value)
        return Traced(text, [TextRun(len(text), owner, field, -1)], environment.active)
    # Marks in place of the texts would be sorted otherwise than the texts.
    if settings["sort_keys"]:
        return derived(json.dumps(value, **settings), traced_in(value), environment.active)

    def written(text: str) -> str:
        # A text with a line break stands as `\n`, two characters: it is found so, and its own characters have no
        # offsets.
        return json.dumps(text, ensure_ascii=bool(settings["ensure_ascii"]))[1:-1]

    def render(given: Iterator[str]) -> str:
        return json.dumps(substitute(value, given), **settings)

    return place(render, list(traced_in(value)), environment.active, written=written)


def _owners_in(value: Any, environment: TracedEnvironment) -> set[int | None]:
    """Return the messages that the parts of `value` belong to."""
    whole = environment.owners.get(id(value))
    if whole is not None:
        return {whole}
    return {run.message for run in _said_in(value)}


def _said_in(value: Any) -> Iterator[TextRun]:
    return (run for text in traced_in(value) for run in text._runs if is_said(run))


def _holds_parts(value: Any) -> bool:
    """Whether `value` is a content of several parts, each of which must be found again."""
    return isinstance(value, list) and len({run.field for run in _said_in(value)}) > 1


def _field_of(value: Any) -> str:
    first = next(_said_in(value), None)
    return "tool_calls" if first is None else first.field
