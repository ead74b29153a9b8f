"""The messages as a template sees them that is followed: it is noted who asks how many there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sftplug.data.render.questions import NotRepeatable
from sftplug.data.render.record import Record
from sftplug.data.render.watched import Watched, plain

ALL = range(sys.maxsize)
"""What a view of numbers shows a part of."""


class View:
    """All messages from one on, or all numbers from one to how many messages there are."""

    __slots__ = ("_backwards", "_end", "_first", "_items", "_record")

    def __init__(
        self, items: Sequence[Any], record: Record, first: int = 0, end: int = 0, *, backwards: bool = False
    ) -> None:
        """Show of `items` those from `first` on, until `end` beyond the number of messages."""
        self._items, self._record, self._first, self._end, self._backwards = items, record, first, end, backwards

    def same_as(self, other: View) -> bool:
        """Whether `other` shows the same, but for how many messages there are."""
        alike = (self._first, self._end, self._backwards) == (other._first, other._end, other._backwards)
        return alike and (self._items is ALL) == (other._items is ALL)

    @property
    def _stop(self) -> int:
        return max(self._record.count + self._end, self._first)

    def _has(self, place: int) -> bool:
        count: Any = self._record.messages(self._end)
        return bool(count > place)

    def _all(self) -> Sequence[Any]:
        self._record.all_read()
        items = [*self._items[self._first : self._stop]]
        return items[::-1] if self._backwards else items

    def length(self) -> Watched:
        """Return how many it shows."""
        # ``messages[3:]`` of two messages has the length 0, and ``count - 3`` says -1: no form says that.
        if self._record.count + self._end < self._first:
            raise NotRepeatable
        return self._record.messages(self._end - self._first)

    def __bool__(self) -> bool:
        """Return whether it shows any."""
        return self._has(self._first)

    def __len__(self) -> int:
        """Return how many it shows, for whoever has to know."""
        return len(self._all())

    def __iter__(self) -> Iterator[Any]:
        """Yield all that it shows, for whoever has to know."""
        yield from self._all()

    def __reversed__(self) -> Iterator[Any]:
        """Yield all that it shows, for whoever has to know."""
        yield from self._all()[::-1]

    def __getitem__(self, key: Any) -> Any:
        """Return one, or a part."""
        if isinstance(key, slice):
            return self._part(plain(key.start), plain(key.stop), plain(key.step))
        key = plain(key)
        if type(key) is not int:
            raise NotRepeatable
        # ``messages[-1]`` is another message for each count.
        if key < 0 or self._backwards:
            return self._all()[key]
        if not self._has(self._first + key):
            raise IndexError(key)
        return self._items[self._first + key]

    def _part(self, start: Any, stop: Any, step: Any) -> Any:
        if (start, stop, step) == (None, None, -1):
            return View(self._items, self._record, self._first, self._end, backwards=not self._backwards)
        start = start or 0
        if self._backwards or step not in (None, 1) or type(start) is not int or start < 0:
            return self._all()[start:stop:step]
        first = self._first + start
        # messages[1:] and messages[:-1] follow how many messages there are; messages[1:3] does not, from three on.
        if stop is None or (type(stop) is int and stop < 0):
            return View(self._items, self._record, first, self._end + (stop or 0))
        if type(stop) is int and (stop == 0 or self._has(self._first + stop - 1)):
            return [*self._items[first : max(self._first + stop, first)]]
        return self._all()[start:stop]

    def path(self) -> LoopPath:
        """Return how a loop goes through it."""
        # Backwards, three messages are the places -2, -1, 0, and two are -1, 0: place -1 is messages[1] in both.
        places = range(1 - self._stop, 1 - self._first) if self._backwards else range(self._first, self._stop)
        return LoopPath(places, self._at, self._needed, self._loop)

    def _at(self, place: int) -> Any:
        return self._items[abs(place)]

    def _needed(self, place: int) -> int:
        """Return how many messages there must be for the loop to come to `place`."""
        return abs(place) + 1 - self._end

    def _loop(self, place: int) -> Loop:
        place, length = abs(place), self._record.messages(self._end - self._first)
        # Forwards a message has the same index in every render; backwards that depends on how many there are.
        index = length - 1 - (place - self._first) if self._backwards else place - self._first
        return Loop(index, length, self._neighbour(place))

    def _neighbour(self, place: int) -> Callable[[int], Any]:
        return lambda by: self._items[place - by if self._backwards else place + by]

    def _not_repeatable(self, *_: Any) -> NoReturn:
        raise NotRepeatable

    __contains__ = __eq__ = __ne__ = __hash__ = __str__ = __repr__ = __format__ = _not_repeatable
    __add__ = __radd__ = __mul__ = __rmul__ = __lt__ = __le__ = __gt__ = __ge__ = _not_repeatable


@dataclass(frozen=True, slots=True)
class LoopPath:
    """How a loop goes through something."""

    places: range
    """The places that it comes to. The same place means the same item in every render."""
    item: Callable[[int], Any]
    needed: Callable[[int], float]
    """How many messages there must be for it to come to a place."""
    loop: Callable[[int], Loop]


def path_of(items: Any) -> LoopPath:
    """Return how a loop goes through what a template gives it."""
    if isinstance(items, View):
        return items.path()
    items = items if isinstance(items, list | tuple) else [*items]

    def loop(place: int) -> Loop:
        return Loop(place, len(items), lambda by: items[place + by])

    return LoopPath(range(len(items)), items.__getitem__, lambda _: 0, loop)


@dataclass(frozen=True, slots=True)
class Loop:
    """What Jinja's `loop` tells."""

    index0: Any
    length: Any
    _neighbour: Callable[[int], Any]

    @property
    def index(self) -> Any:
        """The number of the turn, from 1 on."""
        return self.index0 + 1

    @property
    def first(self) -> bool:
        """Whether this is the first turn."""
        return bool(self.index0 == 0)

    @property
    def last(self) -> bool:
        """Whether this is the last turn."""
        return bool(self.index0 + 1 == self.length)

    @property
    def revindex(self) -> Any:
        """How many turns are left, this one too."""
        return self.length - self.index0

    @property
    def revindex0(self) -> Any:
        """How many turns are left."""
        return self.length - self.index0 - 1

    @property
    def previtem(self) -> Any:
        """The item before; AttributeError if there is none, of which Jinja makes an undefined value."""
        if self.first:
            raise AttributeError
        return self._neighbour(-1)

    @property
    def nextitem(self) -> Any:
        """The item after; AttributeError if there is none, of which Jinja makes an undefined value."""
        if self.last:
            raise AttributeError
        return self._neighbour(1)

    def cycle(self, *values: Any) -> Any:
        """Return one of `values` after the other."""
        return values[plain(self.index0) % len(values)]

    def _not_repeatable(self, *_: Any) -> NoReturn:
        raise NotRepeatable

    __str__ = __repr__ = __format__ = _not_repeatable
