"""What a template reads, keeps and prints in one render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from jinja2.utils import Namespace

from sftplug.data.render.output import PromptText
from sftplug.data.render.questions import NotRepeatable
from sftplug.data.render.traces import MISSING, Step, is_plain, same
from sftplug.data.render.watched import COUNT, NONE_ELSE, Cell, Form, Interval, Watched


@dataclass(slots=True)
class Record:
    """One render of the first `count` messages."""

    count: int
    output: PromptText
    step: Step | None = None
    """The turn of a loop that runs, if it is one that is remembered."""
    known: float = 0
    """So many messages there are in every render that comes to what runs now."""
    effects: int = 0
    """How often something was kept that was not there before."""
    buffers: int = 0
    """How many macros and blocks, which print later, enclose what runs."""
    ran: int = 0
    """How many turns of loops ran that are in no other loop."""
    namespaces: list[Cells] = field(default_factory=list)
    """Those made outside of turns that are remembered."""

    def note(self, cell: Cell, interval: Interval) -> None:
        """Note that what runs would have done the same with any number of `interval` in `cell`."""
        if self.step is None:
            return
        low, high = interval
        # In the turn of message 5 every render that comes there has at least six messages: more than three is no news.
        if cell == COUNT and low <= self.known:
            low = -inf
        if (low, high) != (-inf, inf):
            self.step.note(cell, (low, high))

    def messages(self, offset: int) -> Watched:
        """Return how many messages there are, and `offset` more."""
        return Watched(self.count + offset, self.note, COUNT, Form(1, offset))

    def all_read(self) -> int:
        """Note that what runs depends on how many messages there are, and return their number."""
        self.note(COUNT, (self.count, self.count))
        return self.count

    def read(self, cell: Cell, value: Any) -> Any:
        """Return what a template is given that reads `value` in `cell`."""
        # What was kept as ``count - 1`` is that of this render's count: the cell must hold the same form, not the same
        # number.
        if type(value) is Form:
            self.note(cell, NONE_ELSE)
            return Watched(value.sign * self.count + value.offset, self.note, COUNT, value)
        # What a turn has written itself, it does not learn from outside.
        if self.step is None or cell in self.step.writes:
            return value
        if type(value) is int:
            return Watched(value, self.note, cell)
        self.note(cell, NONE_ELSE)
        return value

    def written(self, cell: Cell, value: Any) -> Any:
        """Return what `cell` holds from now on, when a template writes `value`."""
        if type(value) is Watched:
            value = value.form if value.cell == COUNT else value.plain()
        if self.step is not None:
            if not is_plain(value):
                raise NotRepeatable
            self.step.writes[cell] = value
        return value

    def cells(self) -> Mapping[Cell, Any]:
        """Return what is kept now."""
        return {(held.number, name): value for held in self.namespaces for name, value in held.items()}

    def set(self, cell: Cell, value: Any) -> None:
        """Keep what another render has left in `cell`."""
        number, name = cell
        if number >= len(self.namespaces):
            raise NotRepeatable
        dict.__setitem__(self.namespaces[number], name, value)


class Cells(dict[str, Any]):
    """What a namespace holds; it notes what is read and written."""

    def __init__(self, record: Record, items: Mapping[str, Any]) -> None:
        """Hold `items`. What is made in a turn of a loop is gone with it, and needs no notes."""
        super().__init__()
        self.record, self.number = record, -1 if record.step is not None else len(record.namespaces)
        for name, value in items.items():
            dict.__setitem__(self, name, value if self.number < 0 else record.written((self.number, name), value))
        if self.number >= 0:
            record.namespaces.append(self)

    def __getitem__(self, name: str) -> Any:
        """Return what is held, noting that it was read."""
        value = super().get(name, MISSING)
        if self.number >= 0:
            value = self.record.read((self.number, name), value)
        if value is MISSING:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        """Hold `value`, noting that it was written."""
        before = super().get(name, MISSING)
        value = value if self.number < 0 else self.record.written((self.number, name), value)
        self.record.effects += not same(before, value)
        super().__setitem__(name, value)


class Noted(Namespace):
    """A namespace that notes what is read and written."""

    def __init__(self, record: Record, items: Mapping[str, Any]) -> None:
        """Hold `items`."""
        super().__init__()
        self._Namespace__attrs = Cells(record, items)

    def same_as(self, other: Noted) -> bool:
        """Whether `other` is the same namespace of another render."""
        return cells_of(self).number == cells_of(other).number >= 0


def cells_of(namespace: Noted) -> Cells:
    """Return what a namespace holds."""
    cells: Cells = object.__getattribute__(namespace, "_Namespace__attrs")
    return cells
