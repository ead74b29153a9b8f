"""Note every question that a chat template asks of the texts it renders.

Most templates only copy a message's text, or ask a little of it first: does it begin with ``<tool_response>``, does
it contain ``</think>``, would `trim` change it? A `RecordingStr` is a text that writes such questions
down with their answers. Whatever else a template does with a text (cut it, change it, compare two of them, look one up)
cannot be repeated by a question and raises `NotRepeatable`: nothing is learned from that render.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Cycler, Joiner

from sftplug.data.render.budget import Budget
from sftplug.data.render.instrument import TracedEnvironment
from sftplug.data.render.marks import Marks
from sftplug.data.render.provenance import GIVEN, Active, TextRun, Traced

LONG = 1000
"""A longer text, or a larger number, is not a part of a question: to ask it of many rows would take too long."""
MOST = 10_000
"""So many values are looked through for a text of a message; where there are more, there may be one."""
SAME = object()
"""The answer of a method that returned the text itself, unchanged."""


Field = tuple[int, str]
"""Index of a message, and the key of its text."""


class Question(NamedTuple):
    """One thing that a template wanted to know of a text."""

    parts: tuple[Field | str, ...]
    """What the text was put together from: texts of messages, and what the template wrote."""
    method: Callable[..., Any]
    """A method of `str`."""
    args: tuple[Any, ...]
    answer: Any
    """What it returned; `SAME` for the text itself, in a list if the method returns lists."""

    def answered_alike(self, texts: Mapping[Field, str]) -> bool:
        """Whether a row with these texts gives the same answer."""
        text = "".join([part if isinstance(part, str) else texts[part] for part in self.parts])
        answer = self.method(text, *self.args)
        if self.answer is SAME:
            return bool(answer == text)
        return bool(answer == ([text] if isinstance(self.answer, tuple) else self.answer))


class NotRepeatable(BaseException):
    """The template did with a text what no question can repeat."""


class QuestionLog(Active):
    """Which message is active, and what has been asked so far."""

    __slots__ = ("by_the_day", "questions")

    def __init__(self) -> None:
        """Start with no question."""
        super().__init__()
        self.questions: dict[Question, None] = {}
        self.by_the_day = False
        """Whether the template asked what day it is."""

    @property
    def mixture(self) -> type[Traced]:
        """The class of a text that was put together from several."""
        return RecordingStr

    def lost(self) -> None:
        """Stop: what would be made of the text of another row, no question can tell."""
        raise NotRepeatable


def _not_repeatable(*_: Any, **__: Any) -> NoReturn:
    raise NotRepeatable


class RecordingStr(Traced):
    """The text of a message, or one put together from several, which notes what is asked of it."""

    __slots__ = ()

    def _ask(self, name: str, args: tuple[Any, ...]) -> Any:
        if not all(map(_is_short, args)):
            raise NotRepeatable  # the answer depends on two texts, say
        text = str.__str__(self)
        if name in _CHANGING and (args or name == "expandtabs"):
            return self._ask_whether_without("\t" if name == "expandtabs" else args[0], name)
        method = getattr(str, name)
        answer = method(text, *args)
        if isinstance(answer, bool | int):
            self._note(method, args, answer)
            return answer
        # `content | trim` that changes nothing: in a row of the same shape it must change nothing either.
        if answer == text:
            self._note(method, args, SAME)
            return self
        if answer == [text]:
            self._note(method, args, (SAME,))
            return [self]
        raise NotRepeatable

    def _ask_whether_without(self, sought: Any, name: str) -> Any:
        """Answer for a method that changes nothing where `sought` does not stand; elsewhere it may make much."""
        # content.split("</think>") is [content] for every text without the tag, so that is the question. With the tag,
        # what is made differs from text to text.
        if not isinstance(sought, str) or not sought or str.__contains__(self, sought):
            raise NotRepeatable
        self._note(str.__contains__, (sought,), False)
        return [self] if name in ("split", "rsplit") else self

    def _note(self, method: Callable[..., Any], args: tuple[Any, ...], answer: Any) -> None:
        position, parts, text = 0, [], str.__str__(self)
        for run in self._runs:
            # The text of ``content ~ "!"`` is kept as the content and "!", to be put together from the content of
            # another row.
            literal = text[position : position + run.length]
            parts.append(literal if run.message is None or not run.field else (run.message, run.field))
            position += run.length
        assert isinstance(self._active, QuestionLog)
        self._active.questions[Question(tuple(parts), method, args, answer)] = None

    def __bool__(self) -> bool:
        """Return True: only texts that are not blank are asked."""
        return True

    __hash__ = __len__ = __iter__ = __getitem__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _not_repeatable
    __lt__ = __le__ = __gt__ = __ge__ = __format__ = __reversed__ = __repr__ = _not_repeatable


def _asker(name: str) -> Callable[..., Any]:
    def method(self: RecordingStr, *args: Any, **kwargs: Any) -> Any:
        return _not_repeatable() if kwargs else self._ask(name, args)

    method.__name__ = name  # what it costs is looked up by it
    return method


_CHANGING = ("replace", "expandtabs", "split", "rsplit")


def _is_short(value: Any) -> bool:
    """Whether `value` may be part of a question: a short text of the template's own, a small number, a few of them."""
    if isinstance(value, tuple):
        return len(value) < LONG and all(map(_is_short, value))
    if type(value) is str:
        return len(value) < LONG
    return value is None or (isinstance(value, int) and abs(value) < LONG)


_OPERATORS = ("__contains__", "__eq__", "__ne__")
_KEPT = ("join", "format", "format_map")
for _name in (*(name for name in dir(str) if not name.startswith("_")), *_OPERATORS):
    setattr(RecordingStr, _name, _not_repeatable if _name in _KEPT else _asker(_name))


class Length:
    """How long a `RecordingStr` is: it can be compared, which is a question, and nothing else."""

    def __init__(self, of: RecordingStr) -> None:
        """Measure `of`."""
        self._of = of

    def _compare(self, method: Callable[..., Any], other: Any) -> bool:
        if not isinstance(other, int):
            raise NotRepeatable
        answer = bool(method(str.__str__(self._of), other))
        self._of._note(method, (other,), answer)
        return answer

    def __bool__(self) -> bool:
        """Return True: only texts that are not blank are asked."""
        return True

    __hash__ = __str__ = __repr__ = __format__ = _not_repeatable


def _comparer(name: str) -> Callable[..., Any]:
    def method(text: str, other: int) -> Any:
        return getattr(len(text), name)(other)

    return lambda self, other: self._compare(method, other)


for _name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
    setattr(Length, _name, _comparer(_name))


# --- environment ------------------------------------------------------------------------------------------------------

OF_TYPE = frozenset(
    {"string", "defined", "undefined", "none", "mapping", "iterable", "sequence", "boolean", "number", "integer"}
    | {"float", "true", "false", "callable"}
)
"""Tests that look at a value's type and not at its text."""
_BY_METHODS = frozenset({"eq", "equalto", "==", "ne", "!="})
"""Tests that ask by the operators that a `RecordingStr` has."""
_PASSING = frozenset(
    {"trim", "string", "safe", "replace", "default", "d", "join", "length", "count", "first", "last", "list", "map"}
    | {"select", "reject", "selectattr", "rejectattr", "items", "reverse", "batch", "slice"}
)
"""Filters that hand on what they get, or ask by the methods that a `RecordingStr` has."""
_MARKING = frozenset({"sftplug_mark", "sftplug_mark_item", "sftplug_mark_argument", "sftplug_push", "sftplug_pop"})
_COUNTING = frozenset({"sftplug_tick", "sftplug_sized", "sftplug_compared", "sftplug_searched"})
_KEEPING = _MARKING | _COUNTING | {"sftplug_own", "sftplug_own_here", "sftplug_concat"}
_FUNCTIONS = ("namespace", "dict", "range", "cycler", "joiner", "raise_exception")
"""Globals of templates that keep what they get, or stop the render."""
_OF_JINJA = ("_loop_vars", "_block_vars")
"""Arguments that Jinja adds to calls for its own use."""
_DAY = frozenset("aAbBdjmyY")
"""Directives of `strftime` that stay the same all day."""


class RecordingEnvironment(TracedEnvironment):
    """The environment of chat templates, in which every way to look at a text is a question or is `NotRepeatable`."""

    def __init__(self, like: jinja2.Environment, budget: Budget) -> None:
        """Wrap filters and tests, so that none reads a text past its methods."""
        super().__init__(like, budget)
        self._harmless = [self.globals.get(name) for name in _FUNCTIONS]
        self.filters["sftplug_needle"] = lambda value: value
        self.filters |= {name: _length_or(self.filters[name]) for name in ("length", "count")}
        self.filters.update({name: _asking_filter(name, function) for name, function in self.filters.items()})
        tests: Mapping[str, Any] = self.tests
        self.tests.update({name: _asking_test(name, function) for name, function in tests.items()})

    def new_active(self) -> Active:
        """Return the record of a render that notes questions."""
        return QuestionLog()

    def trace(self, text: str, runs: list[TextRun]) -> Traced:
        """Return `text` as one that notes what is asked of it, if it is what a message says."""
        if runs[0].field in ("content", "reasoning_content"):
            return RecordingStr(text, runs, self.active)
        if runs[0].field == GIVEN:
            return text  # type: ignore[return-value]  # the same for all rows of a shape
        raise NotRepeatable

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call only what reads no text past its methods, and gives the same every time."""
        if getattr(function, "__name__", "") == "strftime_now":
            self._note_day(args)
        elif not any(function is known for known in self._harmless) and not _is_known(function, args, kwargs):
            raise NotRepeatable
        return super().call(context, function, *args, **kwargs)

    def _note_day(self, args: tuple[Any, ...]) -> None:
        # ``%-d %B %Y`` has the directives d, B and Y.
        directives = {piece.lstrip("-")[:1] for piece in str(args[0] if args else "").split("%")[1:]}
        if not directives <= _DAY or not isinstance(self.active, QuestionLog):
            raise NotRepeatable
        self.active.by_the_day = True


def _is_known(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call reads texts by their methods only: a macro, or a method of a text, a list, a loop …"""
    owner = getattr(function, "__self__", None)
    if isinstance(function, Macro | Joiner) or isinstance(owner, RecordingStr | list | dict | LoopContext | Cycler):
        return True
    given = [*args, *(value for name, value in kwargs.items() if name not in _OF_JINJA)]
    return isinstance(owner, str) and (function.__name__ == "join" or not holds_recording(given))


def _length_or(length: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: Length(value) if isinstance(value, RecordingStr) else length(value)


def _asking_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if name in _KEEPING:
        return function

    def asking(values: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        others = (*values[1:], *kwargs.values())
        if name == "random" or holds_recording(others if name in _PASSING else (*values, *others)):
            raise NotRepeatable

    return _passing_on(function, asking)


def _asking_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def asking(values: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> None:
        if name in OF_TYPE or not holds_recording(values):
            return
        if name not in _BY_METHODS:
            raise NotRepeatable

    return _passing_on(function, asking, plain=name in OF_TYPE)


def _passing_on(
    function: Callable[..., Any], asking: Callable[..., None], *, plain: bool = False
) -> Callable[..., Any]:
    """Return `function` with `asking` called before it; it keeps what Jinja passes to it besides the values."""
    from jinja2.utils import _PassArg

    first = _PassArg.from_obj(function) is not None

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        values = args[1:] if first else args
        asking(values, kwargs)
        if plain and values and isinstance(values[0], RecordingStr):
            args = (*args[: len(args) - len(values)], str.__str__(values[0]), *values[1:])
        return function(*args, **kwargs)

    if first:
        wrapped.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return wrapped


def holds_recording(value: Any) -> bool:
    """Whether `value` is a text of a message, or may hold one."""
    waiting, seen = [value], 0
    while waiting and seen < MOST:
        item = waiting.pop()
        seen += 1
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, RecordingStr) or not isinstance(item, str | int | float | type(None)):
            return True
    return bool(waiting)


class RecordingMarks(Marks):
    """The marks, and one at each ``in``: a plain text that is searched for a message's would read it unasked."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Mark what is searched for."""
        self.generic_visit(node)
        if any(operand.op in ("in", "notin") for operand in node.ops):
            # `"yes" in m.content` asks the `RecordingStr`, which notes it; `m.content in "yes no"` asks the plain text.
            holders: list[Any] = [node, *node.ops[:-1]]
            for holder in holders:
                holder.expr = nodes.Filter(holder.expr, "sftplug_needle", [], [], None, None)
        return node
