"""What one render may use: turns of loops, work, output and time.

Work is counted in characters. An item of a list counts as `ITEM` of them, which is about the memory that it takes; so
the bound on work is one on memory as well. Everything that takes longer the more it is given says so here before it
runs, and the clock is looked at again after so much work. No signal and no thread is needed: a template is stopped in
whatever thread it is rendered.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jinja2.utils import Namespace

TURNS = 1_000_000
"""How often the loops, macros and blocks of one render may run, all together."""
SIZE = 10_000_000
"""How many characters one render may print, and how long a text or list may get."""
WORK = 200_000_000
"""How much work one render may be, beyond what the size of its row allows."""
SECONDS = 4.0
"""How much processor time a template may take beyond what its renders earn, all of them together."""
EARNED = 0.005
"""Seconds that each render earns: about ten times what one of a real template takes."""
PER_SIZE = 5e-6
"""Seconds that each character of a row earns."""
ITEM = 100
"""The work of making one item of a list, in characters."""
DEEPEST = 1000
"""How deep lists and mappings may be nested."""
_LOOK = 50_000
"""The clock is looked at after so much work."""


class TooMuch(Exception):
    """The template does more than a chat template may."""


class Unproven(Exception):
    """The template is about to do something of which nobody here knows how long it takes."""


class Extent(NamedTuple):
    """How much a value holds; what stands in it twice counts twice, as it does for whoever writes it out."""

    size: int
    """Characters of its texts, and a few for each number."""
    items: int
    depth: int

    @property
    def work(self) -> int:
        """The work of going through all of it."""
        return self.size + 8 * self.items


class Budget:
    """What a template may still use."""

    def __init__(self, *, guarded: bool = False) -> None:
        self.guarded = guarded
        """Whether somebody outside would end the process: then even what is `Unproven` may be tried."""
        self.left = SECONDS
        """Seconds that this render may take."""
        self._turns = self._printed = self._work = self._looked = 0
        self._limit, self._size, self._started = WORK, SIZE, time.thread_time()

    def begin(self, size: int) -> None:
        """A render of a row with so many characters begins."""
        self._turns = self._printed = self._work = 0
        self._looked = _LOOK  # the first look comes after so much work: most renders are over before
        # A long row must not be refused for its length: it may make a list item of each character, and print each four
        # times.
        self._limit, self._size = WORK + ITEM * size, SIZE + 4 * size
        # A template that was quick a thousand times has no more than `SECONDS` in hand for the next render.
        self.left = min(self.left + EARNED, SECONDS) + PER_SIZE * size
        self._started = time.thread_time()

    def end(self) -> None:
        """The render is over."""
        self.left = min(self.left - (time.thread_time() - self._started), SECONDS)

    def charge(self, work: int) -> None:
        """Count `work`. Raises TooMuch when it is too much, or has taken too long."""
        self._work += work
        if self._work >= self._looked:
            self._look()

    def _look(self) -> None:
        if self._work > self._limit:
            raise TooMuch(f"it makes texts and lists of more than {self._limit:,} characters in one render")
        self._looked = self._work + _LOOK
        # Processor time of this thread, not time on the clock: a busy machine must not refuse a template.
        if time.thread_time() - self._started > self.left:
            raise TooMuch(f"it takes more than {SECONDS:g} seconds")

    def tick(self, work: int) -> int:
        """Count one turn of a loop, or one call of a macro, of which the body is so much work."""
        self._turns += 1
        if self._turns > TURNS:
            raise TooMuch(f"its loops and macros run more than {TURNS:,} times")
        self.charge(work)
        return work

    def printed(self, value: Any) -> Any:
        """Count what is printed, or joined to a text that is kept for later."""
        size = str.__len__(value) if isinstance(value, str) else self.deep(value)
        self._printed += size
        if self._printed > self._size:
            raise TooMuch(f"it prints more than {self._size:,} characters")
        self.charge(size)
        return value

    def sized(self, value: Any) -> Any:
        """Count a text or list that was made. Raises TooMuch when it is too long."""
        if isinstance(value, str):
            length = str.__len__(value)  # a traced text must not notice
            # A Traced of many runs is dear: each of them is gone through when it is cut or joined.
            work = length if type(value) is str else length + ITEM * len(getattr(value, "_runs", ()))
        elif isinstance(value, _COUNTED):
            length = len(value)
            work = 8 * length
        else:
            return value
        # As `afford` and `charge` do; written out, for this runs at every value that a template makes.
        if length > self._size:
            self.afford(length)
        self._work += work
        if self._work >= self._looked:
            self._look()
        return value

    def afford(self, length: int) -> None:
        """Raise TooMuch for a text or list that would be too long."""
        if length > self._size:
            raise TooMuch(f"it makes a text or list of more than {self._size:,} items")

    @property
    def longest(self) -> int:
        """How long a text or list may get."""
        return self._size

    def deep(self, value: Any) -> int:
        """Count the work of going through all of `value`, and return it."""
        if isinstance(value, str):
            work = str.__len__(value)
        elif value is None or isinstance(value, int | float):
            work = 8
        else:
            work = measured(value, self._size).work
        self.charge(work)
        return work

    def searched(self, value: Any) -> Any:
        """Count the work of looking for something in `value`."""
        if isinstance(value, str):
            self.charge(str.__len__(value))
        elif not isinstance(value, Mapping):
            self.deep(value)
        return value

    def compared(self, value: Any) -> Any:
        """Count the work of comparing or hashing `value`."""
        if value is not None and type(value) not in (int, bool, float):
            self.deep(value)
        return value

    def metered(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield each of `values`, counted."""
        for value in values:
            self.charge(ITEM + length_of(value) // 8)
            yield value


def length_of(value: Any) -> int:
    """Return the length of a text or list, 0 for anything else."""
    if isinstance(value, str):
        return str.__len__(value)  # a traced text must not notice
    return len(value) if isinstance(value, _COUNTED) else 0


def measured(value: Any, most: int) -> Extent:
    """Return how much `value` holds. Raises TooMuch for more than `most`, and for what is nested too deep."""
    # A stack, and no recursion: what is measured may be nested deeper than Python's own stack.
    waiting, size, items, depth = [(value, 0)], 0, 0, 0
    while waiting:
        item, level = waiting.pop()
        items += 1
        if isinstance(item, str):
            size += str.__len__(item)
            continue
        inside = _inside(item)
        if inside is None:
            items += len(item) if type(item) is range else 0
            continue
        depth = max(depth, level + 1)
        if depth > DEEPEST:
            raise TooMuch(f"it nests lists more than {DEEPEST:,} deep")
        # Asked before the parts are taken in: lists that hold one list twice, thirty deep, are a billion items.
        if size + 8 * (items + len(waiting) + len(inside)) > most:
            raise TooMuch(f"it writes out, compares or sorts a list of more than {most:,} characters")
        waiting += [(part, level + 1) for part in inside]
    if size + 8 * items > most:
        raise TooMuch(f"it writes out, compares or sorts a list of more than {most:,} characters")
    return Extent(size, items, depth)


def _inside(value: Any) -> Collection[Any] | None:
    """Return what a list or mapping holds; None for anything else."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset) or type(value) in _VIEWS:
        return value  # type: ignore[no-any-return]
    if isinstance(value, Namespace):
        return list(getattr(value, "_Namespace__attrs").values())  # noqa: B009 - no name of this module
    return None


_COUNTED = (list, tuple, dict)
_NOTHING: dict[str, str] = {}
_VIEWS = (type(_NOTHING.keys()), type(_NOTHING.values()), type(_NOTHING.items()))
