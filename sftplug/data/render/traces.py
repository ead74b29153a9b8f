"""What the turns of a template's loop read, kept and printed, and whether another render would do the same.

A turn of a loop is a function of what it reads. Where another render holds the same, or what answers all questions
alike (see `watched`), its turn need not run: what it kept and printed is known. For a whole stretch of turns that is
found out in a logarithmic number of steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined
from jinja2.utils import Namespace

from sftplug.data.render.provenance import Traced
from sftplug.data.render.watched import COUNT, Cell, Form, Interval, Watched

if TYPE_CHECKING:
    from sftplug.data.render.output import PromptText

MISSING = object()
"""What a cell holds that is not there."""
_FEW = 50
"""Lists of so many items are compared; longer ones count as different."""


@dataclass(slots=True)
class Step:
    """One turn of a loop."""

    start: int
    """How much was printed before it."""
    before: int | None
    """The message that was active before it."""
    end: int = 0
    after: int | None = None
    reads: dict[Cell, Interval] = field(default_factory=dict)
    """The cells that it read before it wrote them, and which numbers would have done."""
    writes: dict[Cell, Any] = field(default_factory=dict)

    def note(self, cell: Cell, interval: Interval) -> None:
        """Note that `cell` was read, and must hold a number of this interval."""
        low, high = self.reads.get(cell, (-inf, inf))
        self.reads[cell] = max(low, interval[0]), min(high, interval[1])

    def moved(self, by: int) -> Step:
        """Return the same turn in a text in which it stands elsewhere."""
        return replace(self, start=self.start + by, end=self.end + by)


class Reads:
    """The turns that read a cell, in order, and what they would have taken."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self._levels: list[list[Interval]] = [[]]
        """What each turn, each two, each four … of them would have taken."""

    def add(self, turn: int, interval: Interval) -> None:
        """Add what a later turn would have taken."""
        self.turns.append(turn)
        self._levels[0].append(interval)

    def close(self) -> None:
        """Make the levels."""
        # Turns that would have taken 0 to 9, 1 to 9, 2 to 9, 3 to 9: each two 1 to 9 and 3 to 9, all four 3 to 9. So
        # one look tells that four turns take 5, and it takes few looks to find the one that does not.
        while len(self._levels[-1]) > 1:
            last = self._levels[-1]
            pairs = (last[index : index + 2] for index in range(0, len(last), 2))
            self._levels.append([(max(low for low, _ in pair), min(high for _, high in pair)) for pair in pairs])

    def first_against(self, value: float, turn: int) -> float:
        """Return the first turn, from `turn` on, that would not have taken `value`."""
        index, size = bisect_left(self.turns, turn), len(self.turns)
        while index < size:
            level = next((level for level in self._widest(index) if self._takes(level, index, value)), None)
            if level is None:
                return self.turns[index]
            index += 1 << level
        return inf

    def _widest(self, index: int) -> Iterator[int]:
        """Yield the levels on which an interval begins at `index`, the widest first."""
        # At turn 6 (binary 110) two begin, but no four; at turn 4 (100) four do; at turn 0 all of them.
        most = len(self._levels) - 1
        lowest = (index & -index).bit_length() - 1 if index else most
        yield from range(min(lowest, most), -1, -1)

    def _takes(self, level: int, index: int, value: float) -> bool:
        low, high = self._levels[level][index >> level]
        return low <= value <= high


@dataclass(slots=True)
class Trace:
    """Turns of one loop that ran one after the other."""

    first: int
    """The place of the first in the order of the loop."""
    entry: Mapping[Cell, Any]
    """What every cell held before it."""
    output: PromptText
    """Where they printed."""
    steps: list[Step] = field(default_factory=list)
    _reads: dict[Cell, Reads] = field(default_factory=dict)
    _writes: dict[Cell, tuple[list[int], list[Any]]] = field(default_factory=dict)
    """Which turns wrote a cell, and what."""
    _indexed: int = 0
    """How many of the steps the two above know: those of ChatML, which read and write nothing, leave both empty."""

    def reaches(self, place: int, cells: Mapping[Cell, Any], count: int, active: int | None) -> int:
        """Return the place of the first turn, from `place` on, that might not do the same.

        `cells` are what that render holds at `place`, `count` is how many messages it has, and `active` the message
        that it works on.
        """
        if self._indexed < len(self.steps):
            self._index()
        turn = place - self.first
        # The template's own text would be that of another message from the first character on.
        if self.steps[turn].before != active:
            return place
        reached: float = len(self.steps)
        for cell, reads in self._reads.items():
            if cell == COUNT:
                reached = min(reached, reads.first_against(count, turn))
                continue
            value, mine = cells.get(cell, MISSING), self._held(cell, turn)
            if not same(value, mine):
                # No interval takes nan: what is not a number in both renders must be the same.
                against = reads.first_against(value if type(value) is type(mine) is int else nan, turn)
                # After it was written, it holds the same in both. The turn that writes it reads it before that.
                reached = min(reached, against) if against <= self._next_write(cell, turn) else reached
        return self.first + int(reached)

    def kept(self, start: int, end: int) -> Iterator[tuple[Cell, Any]]:
        """Yield what the turns from one place to another, exclusive, leave in the cells that they write."""
        for cell, (turns, values) in self._writes.items():
            index = bisect_left(turns, end - self.first) - 1
            if index >= 0 and turns[index] >= start - self.first:
                yield cell, values[index]

    def _index(self) -> None:
        self._reads, self._writes, self._indexed = {}, {}, len(self.steps)
        for turn, step in enumerate(self.steps):
            for cell, interval in step.reads.items():
                self._reads.setdefault(cell, Reads()).add(turn, interval)
            for cell, value in step.writes.items():
                turns, values = self._writes.setdefault(cell, ([], []))
                turns.append(turn)
                values.append(value)
        for reads in self._reads.values():
            reads.close()

    def _held(self, cell: Cell, turn: int) -> Any:
        """Return what `cell` held before a turn."""
        turns, values = self._writes.get(cell, ([], []))
        index = bisect_left(turns, turn) - 1
        return values[index] if index >= 0 else self.entry.get(cell, MISSING)

    def _next_write(self, cell: Cell, turn: int) -> float:
        turns, _ = self._writes.get(cell, ([], []))
        index = bisect_left(turns, turn)
        return turns[index] if index < len(turns) else inf


def same(first: Any, second: Any) -> bool:
    """Whether a template cannot tell two values of two renders apart, nor who wrote them."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    compare = _COMPARED.get(type(first)) or getattr(type(first), "same_as", None)
    return compare is not None and compare(first, second)


def _same_items(first: Any, second: Any) -> bool:
    return len(first) == len(second) <= _FEW and all(map(same, first, second))


def _same_mapping(first: Any, second: Any) -> bool:
    return _same_items([*first.keys()], [*second.keys()]) and _same_items([*first.values()], [*second.values()])


def _equal(first: Any, second: Any) -> bool:
    return bool(first == second)


_COMPARED: Mapping[type, Callable[[Any, Any], bool]] = {
    **dict.fromkeys((str, int, float, bool, Form), _equal),
    **dict.fromkeys((list, tuple), _same_items),
    dict: _same_mapping,
    Traced: lambda first, second: str.__eq__(first, second) and first._runs == second._runs,
    Watched: lambda first, second: first.cell == second.cell == COUNT and first.form == second.form,
    Undefined: lambda first, second: first._undefined_name == second._undefined_name,
}
"""How values of a type are compared; of other types only one and the same is the same."""


def is_plain(value: Any) -> bool:
    """Whether `value` means the same in every render: texts, numbers, and a few of them in lists and mappings."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
        elif not isinstance(item, str | int | float | Form | None) or isinstance(item, Namespace):
            return False
        if seen > 20 * _FEW:
            return False
    return True
