"""Whole numbers that note what a template asks of them.

What a template prints of the first messages of a conversation often depends on how many there are, or on a number that
it has counted before: is this the last, does it come after the last question? A `Watched` number answers as a plain
one does, and notes for which other numbers the answer would have been the same. Asked for more than a comparison (to
be printed, say), it notes that it must be this very number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

Cell = tuple[int, str]
"""A place that is read: which namespace, and which of its attributes."""
COUNT: Cell = (-1, "messages")
"""How many messages there are."""
Interval = tuple[float, float]
"""The least and the largest number with which the answers are the same."""
NONE_ELSE: Interval = (inf, -inf)
"""For what is not compared as a number: it must be the same."""
Note = Callable[[Cell, Interval], None]


class Form(NamedTuple):
    """A number that follows how many messages there are: ``sign * count + offset``."""

    sign: int
    offset: int


class Watched:
    """The number ``sign * x + offset``, where `x` is what a cell holds."""

    __slots__ = ("_note", "cell", "form", "value")

    def __init__(self, value: int, note: Note, cell: Cell, form: Form = Form(1, 0)) -> None:  # noqa: B008 - a constant
        """Stand for `value`, and tell `note` what is asked."""
        self.value, self._note, self.cell, self.form = value, note, cell, form

    def plain(self) -> int:
        """Return the number; from here on nobody knows what becomes of it."""
        self._between(self.value, self.value)
        return self.value

    def _between(self, low: float, high: float) -> None:
        # `10 - n < 7` with n = 5: 10 - n may be up to 6, so n may be 4 or more.
        low, high = low - self.form.offset, high - self.form.offset
        self._note(self.cell, (low, high) if self.form.sign > 0 else (-high, -low))

    def _moved(self, sign: int, by: int) -> Watched:
        form = Form(sign * self.form.sign, sign * self.form.offset + by)
        return Watched(sign * self.value + by, self._note, self.cell, form)

    def _follows(self, other: Any, sign: int) -> bool:
        """Whether `other` changes as this does, so that the difference (of `sign` 1) or the sum is always the same."""
        # ``count - 1`` and ``count + 2`` differ by 3 in every render; ``count - 1`` and ``5 - count`` add up to 4.
        return type(other) is Watched and self.cell == other.cell and self.form.sign == sign * other.form.sign

    def __add__(self, other: Any) -> Any:
        """Return the sum, which is watched too."""
        if type(other) is int:
            return self._moved(1, other)
        return self.value + other.value if self._follows(other, -1) else self.plain() + plain(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        """Return the difference, which is watched too."""
        if type(other) is int:
            return self._moved(1, -other)
        return self.value - other.value if self._follows(other, 1) else self.plain() - plain(other)

    def __rsub__(self, other: Any) -> Any:
        """Return the difference, which is watched too."""
        return self._moved(-1, other) if type(other) is int else plain(other) - self.plain()

    def _compare(self, name: str, other: Any) -> bool:
        # ``count - 1 < count`` whatever the count: nothing depends on the answer.
        if self._follows(other, 1):
            return bool(_OPERATORS[name](self.value, other.value))
        other = plain(other)
        if not isinstance(other, int):
            return bool(_OPERATORS[name](self.plain(), other))
        answer = bool(_OPERATORS[name](self.value, other))
        self._between(*_alike(name if answer else _OPPOSITE[name], self.value, other))
        return answer

    def __bool__(self) -> bool:
        """Return whether it is another number than 0."""
        return self._compare("ne", 0)


def plain(value: Any) -> Any:
    """Return `value`, a watched number as a plain one."""
    return value.plain() if type(value) is Watched else value


_OPERATORS = {name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")}
_OPPOSITE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


def _alike(name: str, value: int, other: int) -> Interval:
    """Return for which numbers, `value` among them, ``number <name> other`` holds too: all, or all on this side."""
    # 5 > 3 holds from 4 on, 5 == 5 for 5 alone. 5 != 7 holds up to 6; past 7 too, but an interval has no hole.
    if name == "eq":
        return other, other
    if name == "ne":
        name = "lt" if value < other else "gt"
    return {"lt": (-inf, other - 1), "le": (-inf, other), "gt": (other + 1, inf), "ge": (other, inf)}[name]


def _comparing(name: str) -> Callable[[Watched, Any], bool]:
    return lambda self, other: self._compare(name, other)


def _as_plain(name: str) -> Callable[..., Any]:
    def method(self: Watched, *args: Any) -> Any:
        return getattr(self.plain(), name)(*map(plain, args))

    return method


for _name in _OPERATORS:
    setattr(Watched, f"__{_name}__", _comparing(_name))
# ``{{ count }}`` and ``count % 2`` tell more than any interval: from then on it must be this very number.
for _name in (
    *("mul", "rmul", "floordiv", "rfloordiv", "truediv", "rtruediv", "mod", "rmod", "pow", "rpow", "neg", "pos", "abs"),
    *("hash", "str", "repr", "format", "index", "int", "float"),
):
    setattr(Watched, f"__{_name}__", _as_plain(f"__{_name}__"))
