"""The environments in which a template is followed through a conversation; see `walk`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import jinja2
from jinja2.runtime import Macro
from jinja2.utils import _PassArg

from sftplug.data.render.bounds import BoundedEnvironment
from sftplug.data.render.budget import Budget
from sftplug.data.render.instrument import PlainEnvironment, TracedEnvironment
from sftplug.data.render.output import PromptText
from sftplug.data.render.provenance import Active
from sftplug.data.render.questions import OF_TYPE, NotRepeatable
from sftplug.data.render.record import Noted, Record
from sftplug.data.render.traces import Step, Trace, same
from sftplug.data.render.view import ALL, Loop, LoopPath, View, path_of
from sftplug.data.render.watched import COUNT, Watched, plain

MERGED = 16
"""So many turns that did not run are added to those that did before them."""
SCOPES = 4
"""So many different sets of variables before a loop are remembered."""
_COMPARING = frozenset({"eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<="})
_COMPARING |= frozenset({"gt", "greaterthan", ">", "ge", ">="})
"""Tests that compare as operators do."""
_OF_LOOPS = frozenset(name for name in dir(Loop) if not name.startswith("_"))


@dataclass(slots=True)
class Known:
    """The turns of one loop that ran so far, in all renders of a conversation with the same variables."""

    scope: list[Any]
    whole: dict[int, Trace] = field(default_factory=dict)
    """Place -> the turns that ran first there."""
    latest: dict[int, Trace] = field(default_factory=dict)
    """Place -> the turns that ran last there."""


LoopMemory = dict[int, list[Known]]
"""Loop -> what is known of it."""


class FollowingEnvironment(BoundedEnvironment):
    """What both environments have in common."""

    active: Active

    def follow(self) -> None:
        """Let functions, filters and tests note what they are asked; called when all of them are there."""
        self._record = Record(0, PromptText(""))
        self._memory: LoopMemory = {}
        self._range: Any = self.globals["range"]
        self._own = self._namespace, self._numbers
        for name, function in zip(("namespace", "range"), self._own, strict=True):
            self.know(name, function)
        tests: dict[str, Any] = dict(self.tests)
        self.filters.update({name: _given_plain(name, function) for name, function in self.filters.items()})
        self.filters.update({name: _length_or(self.filters[name]) for name in ("length", "count")})
        self.tests.update({name: _tested(name, function) for name, function in tests.items()})
        self.filters.update({"sftplug_loop": self._loop, "sftplug_buffer": self._buffer})

    @contextmanager
    def following(self, record: Record, memory: LoopMemory) -> Iterator[None]:
        """Note in `record` what a render asks, and what its loops do in `memory`."""
        # A render that was stopped midway has left its marks on the stack.
        self._record, self._memory = record, memory
        self.active.message = None
        self.active.stack.clear()
        yield

    # --- what templates do ------------------------------------------------------------------------------------------

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what a list and Jinja's `loop` have."""
        if isinstance(obj, View):
            # ``messages.index(m)`` reads all of them, in a way that nobody notes.
            if hasattr(list, attribute):
                raise NotRepeatable
            return self.undefined(obj=obj, name=attribute)
        if isinstance(obj, Loop) and attribute not in _OF_LOOPS:
            raise NotRepeatable
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return what a list and Jinja's `loop` have."""
        if isinstance(obj, View | Loop) and isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Add to and subtract from watched numbers; for all else they are plain ones."""
        if not (operator in "+-" and {type(left), type(right)} <= {int, Watched}):
            left, right = plain(left), plain(right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Give watched numbers to those who know them, and plain ones to all others."""
        if not isinstance(function, Macro) and not any(function is one for one in self._own):
            args, kwargs = tuple(map(plain, args)), {name: plain(value) for name, value in kwargs.items()}
        return super().call(context, function, *args, **kwargs)

    def _namespace(self, *args: Any, **kwargs: Any) -> Noted:
        return Noted(self._record, dict(*args, **kwargs))

    def _numbers(self, *args: Any) -> Any:
        """Return a range; one up to the number of messages as a view."""
        stop = args[-1] if len(args) in (1, 2) else None
        if not (type(stop) is Watched and stop.cell == COUNT and stop.form.sign == 1):
            return self._range(*map(plain, args))
        # ``range(1, messages|length - 1)`` is the part of all numbers from 1 until one before the number of messages.
        return View(ALL, self._record, plain(args[0]) if len(args) == 2 else 0, stop.form.offset)

    def _buffer(self, _: Any, by: int) -> None:
        self._record.buffers += by

    # --- loops ------------------------------------------------------------------------------------------------------

    def _loop(self, items: Any, number: int, variables: list[Any]) -> Iterator[tuple[Any, Loop]]:
        """Return what a loop goes through, and what `loop` tells; `number` is 0 for a loop in another."""
        record = self._record
        # Remembered are loops outside of all others that print into the text itself. What a macro prints (`buffers`)
        # may be used elsewhere, later or never.
        if number and record.step is None and not record.buffers and isinstance(items, View | list | tuple):
            return self._remembered(path_of(items), self._known_of(number, [items, *variables]))
        return self._inner(items)

    def _known_of(self, number: int, scope: list[Any]) -> Known:
        """Return what is known of a loop that goes through, and may read, what is in `scope`."""
        everything = self._memory.setdefault(number, [])
        known = next((known for known in everything if _same_scope(known.scope, scope)), None)
        if known is None:
            known = Known(scope)
            # A template that sets another variable for each prompt fills no memory: beyond `SCOPES` its turns run
            # unremembered.
            if len(everything) < SCOPES:
                everything.append(known)
        return known

    def _remembered(self, path: LoopPath, known: Known) -> Iterator[tuple[Any, Loop]]:
        record, place, trace = self._record, path.places.start, None
        while place < path.places.stop:
            # Either a stretch of turns is taken over from another render, or one turn runs here.
            reached, alike = self._reached(known, place, path.places.stop)
            if alike is not None:
                trace = self._take_over(alike, place, reached, trace)
                if trace is not None:
                    known.latest |= dict.fromkeys(range(place, reached), trace)
                place = reached
                continue
            # A trace is turns that ran one after the other: where a long stretch was taken over in between, a new one
            # begins.
            trace = trace or Trace(place, record.cells(), record.output)
            record.known, record.ran = path.needed(place), record.ran + 1
            record.step = step = Step(record.output.length, self.active.message)
            try:
                yield path.item(place), path.loop(place)
            finally:
                # Also where the template breaks out of the loop, or refuses the conversation in it; such a turn is not
                # remembered.
                record.step, record.known = None, 0
            step.end, step.after = record.output.length, self.active.message
            trace.steps.append(step)
            known.whole.setdefault(place, trace)
            known.latest[place] = trace
            place += 1

    def _reached(self, known: Known, place: int, stop: int) -> tuple[int, Trace | None]:
        """Return up to where turns from `place` on need not run, and the trace that tells what they would do."""
        record = self._record
        reached, alike = place, None
        # The latest trace is mostly that of the prompt before this one, which holds nearly the same; the first is
        # mostly that of the whole conversation, which reaches furthest.
        for trace in (known.latest.get(place), known.whole.get(place)):
            if trace is not None and trace is not alike:
                until = min(stop, trace.reaches(place, record.cells(), record.count, self.active.message))
                reached, alike = (until, trace) if until > reached else (reached, alike)
        return reached, alike

    def _take_over(self, alike: Trace, place: int, reached: int, trace: Trace | None) -> Trace | None:
        """Do what turns do that need not run. Return the `trace` in which others ran if it goes on with them."""
        record = self._record
        first, last = alike.steps[place - alike.first], alike.steps[reached - 1 - alike.first]
        for cell, value in alike.kept(place, reached):
            record.set(cell, value)
        self.active.message = last.after
        # A long stretch is copied by reference, and what runs next begins a trace of its own. A few turns become turns
        # of the present trace, or there would soon be a trace for each turn and no long stretch to find.
        if trace is None or reached - place > MERGED:
            record.output.copy(alike.output, first.start, last.end)
            return None
        # A trace with a few turns of others between its own is taken over in one piece.
        by = record.output.length - first.start
        trace.steps += [step.moved(by) for step in alike.steps[place - alike.first : reached - alike.first]]
        record.output.repeat(alike.output, first.start, last.end)
        return trace

    def _inner(self, items: Any) -> Iterator[tuple[Any, Loop]]:
        """Go through a loop in a turn of another.

        Where there are fewer messages it ends earlier; but that makes no difference after it last did anything.
        """
        record, path = self._record, path_of(items)
        outer, needed, left = record.known, 0.0, 0.0
        try:
            for place in path.places:
                effects = record.effects, record.output.length
                record.known = max(outer, left := path.needed(place))
                yield path.item(place), path.loop(place)
                # A turn that printed and kept nothing may be lacking in another render; one that did something must be
                # there.
                if record.buffers or effects != (record.effects, record.output.length):
                    needed = left
            left = 0.0
        finally:
            record.known = outer
            if isinstance(items, View):
                # One that was left in the middle ends there too where there are more messages.
                backwards = path.places.start < 0
                least = record.count if backwards else max(needed, left)
                record.note(COUNT, (least, inf if left and not backwards else record.count))


class PlainFollowing(FollowingEnvironment, PlainEnvironment):
    """The environment of chat templates as transformers has it, followed."""

    def __init__(self, like: jinja2.Environment, budget: Budget) -> None:
        """Copy the filters, tests and globals of `like`, transformers' own environment."""
        PlainEnvironment.__init__(self, like, budget)
        self.active = Active()
        self.follow()


class TracedFollowing(FollowingEnvironment, TracedEnvironment):
    """The environment that keeps track of who wrote what, followed."""

    def __init__(self, like: jinja2.Environment, budget: Budget) -> None:
        """Copy the filters, tests and globals of `like`, transformers' own environment."""
        TracedEnvironment.__init__(self, like, budget)
        self.follow()
        mark_item = self.filters["sftplug_mark_item"]

        def mark(container: Any, index: Any) -> None:
            if not isinstance(container, View):
                mark_item(container, index)
            elif isinstance(index, int):
                with_it = next(iter(_one_of(container, index)), None)
                # A `View` is no list, and to ask for its length would tie what is printed to how many messages there
                # are.
                mark_item([with_it], 0)

        self.filters["sftplug_mark_item"] = mark

    def owner_of(self, value: Any) -> int | None:
        """Return whose `value` is: of all messages, whose the first is."""
        if isinstance(value, View):
            return super().owner_of([value[0]]) if value else None
        return super().owner_of(value)


def _one_of(view: View, index: int) -> list[Any]:
    try:
        return [view[index]]
    except IndexError:
        return []


def _same_scope(first: list[Any], second: list[Any]) -> bool:
    return all(map(same, first, second))


def _length_or(length: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: value.length() if isinstance(value, View) else length(value)


def _given_plain(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that gets plain numbers."""
    if name.startswith("sftplug_") and name not in ("sftplug_concat", "sftplug_percent", "sftplug_mark_item"):
        return function
    return _passing_on(function, lambda values: tuple(map(plain, values)))


def _tested(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a test that gets plain numbers, if it does more than compare them."""
    if name in _COMPARING:
        return function
    if name in OF_TYPE:
        # ``n is number`` is answered alike for every number: nothing is noted.
        return _passing_on(function, lambda values: tuple(map(_shown, values)))
    return _passing_on(function, lambda values: tuple(map(plain, values)))


def _shown(value: Any) -> Any:
    return value.value if type(value) is Watched else value


def _passing_on(
    function: Callable[..., Any], change: Callable[[tuple[Any, ...]], tuple[Any, ...]]
) -> Callable[..., Any]:
    """Return `function` with changed arguments; it keeps what Jinja passes to it besides the values."""
    first = _PassArg.from_obj(function) is not None

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kwargs = {name: plain(value) for name, value in kwargs.items()}
        return function(*args[:first], *change(args[first:]), **kwargs)

    if first:
        wrapped.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return wrapped
