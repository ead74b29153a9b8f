"""Strings that remember who wrote them.

A chat template sees `Traced` strings instead of the messages' own. They have the same characters, so every comparison,
test and lookup in the template goes as before; but what comes out of `+`, slicing, `strip`, `split`, `replace`,
`join` and the like still knows, run by run, which message and which field its characters came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, SupportsIndex

from markupsafe import Markup

LITERAL = ""
"""The field of text that the template itself wrote."""
DERIVED = "derived"
"""The field of text that was made from messages in a way that cannot be followed: ``x | title``, ``{{ [x] }}``."""
GIVEN = "given"
"""The field of text that a row gives beside its messages: tools, documents, names of arguments, ids. Where it stands
it counts as the template's own, but it cannot be a control token."""
MENTIONED = ("tool_calls", "name")
"""Keys whose values templates also print in the turns of other messages."""


class TextRun(NamedTuple):
    """Some characters in a row that came from one place."""

    length: int
    message: int | None
    """Index of the message; None when the template wrote it while no message was at hand."""
    field: str
    """Key of the message the text came from (``content``, ``tool_calls`` …); `LITERAL` for the template's own,
    `GIVEN` for the rest of the row."""
    offset: int
    """Where in that field the run starts; -1 when the characters were changed on the way."""
    within: int | None = None
    """The message that the template was working on when it printed the run into a buffer."""


@dataclass(slots=True)
class Active:
    """Which message the template is working on: what its own text belongs to."""

    message: int | None = None
    stack: list[int | None] = field(default_factory=list)

    repeated: list[Traced] = field(default_factory=list)
    """The strings that were written out as Python would (in a list that is printed), in order."""

    @property
    def mixture(self) -> type[Traced]:
        """The class of a text that was put together from several."""
        return Traced

    def lost(self) -> None:
        """Note that what was made of a text says nothing of what would be made of another."""


class Traced(str):
    """A string with the runs that its characters came in."""

    __slots__ = ("_active", "_runs")
    _runs: tuple[TextRun, ...]
    _active: Active

    def __new__(cls, text: str, runs: Iterable[TextRun], active: Active) -> Traced:
        """Return `text` with `runs`, whose lengths add up to its length; an empty string keeps one empty run."""
        traced = super().__new__(cls, text)
        traced._runs = tuple(runs)
        traced._active = active
        return traced

    # --- parts ------------------------------------------------------------------------------------------------------

    def _part(self, start: int, stop: int) -> Traced:
        # Of "Hello", all of it the content of message 2, [1:4] is "ell": (message 2, content, offset 1).
        runs, position = [], 0
        for run in self._runs:
            low, high = max(start, position), min(stop, position + run.length)
            if low < high:
                runs.append(
                    run._replace(
                        length=high - low, offset=run.offset if run.offset < 0 else run.offset + low - position
                    )
                )
            position += run.length
        # An empty rest still says where it came from: an empty reply must be found in the text.
        runs = runs or [run._replace(length=0) for run in self._runs[:1]]
        return Traced(str.__getitem__(self, slice(start, stop)), runs, self._active)

    def __getitem__(self, key: SupportsIndex | slice) -> Traced:
        """Return a part with its runs; a stepped slice goes character by character."""
        if not isinstance(key, slice):
            index = range(len(self))[key]
            return self._part(index, index + 1)
        start, stop, step = key.indices(len(self))
        if step == 1:
            return self._part(start, max(start, stop))
        return self._joined([self._part(index, index + 1) for index in range(start, stop, step)])

    def __iter__(self) -> Iterator[Traced]:
        """Yield the characters, each with its run."""
        return (self._part(index, index + 1) for index in range(len(self)))

    def __str__(self) -> Traced:
        """Return the string itself: Jinja converts everything that it prints."""
        return self

    def __repr__(self) -> str:
        """Return what Python writes in a list, and note that it was written."""
        self._active.repeated.append(self)
        return str.__repr__(self)

    def _stripped(self, plain: str, *, left: bool) -> Traced:
        start = len(self) - len(plain) if left else 0
        return self._part(start, start + len(plain))

    def lstrip(self, chars: str | None = None, /) -> Traced:  # noqa: D102 - as str
        return self._stripped(str.lstrip(self, chars), left=True)

    def rstrip(self, chars: str | None = None, /) -> Traced:  # noqa: D102 - as str
        return self._stripped(str.rstrip(self, chars), left=False)

    def strip(self, chars: str | None = None, /) -> Traced:  # noqa: D102 - as str
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> Traced:  # noqa: D102 - as str
        return self._stripped(str.removeprefix(self, prefix), left=True)

    def removesuffix(self, suffix: str, /) -> Traced:  # noqa: D102 - as str
        return self._stripped(str.removesuffix(self, suffix), left=False)

    def _located(self, pieces: Sequence[str], separator: int) -> list[Traced]:
        """Return the parts that `pieces` are, found from the left, `separator` characters apart (or more)."""
        parts, position = [], 0
        for piece in pieces:
            # Behind the last piece: of "a, a" the second "a" is not the first again. White space is skipped over.
            position = str.index(self, piece, position)
            parts.append(self._part(position, position + len(piece)))
            position += len(piece) + separator
        return parts

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Traced]:  # type: ignore[override]
        """Split as str does, each part with its runs."""
        return self._located(str.split(self, sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Traced]:  # type: ignore[override]
        """Split as str does, each part with its runs."""
        return self._located(str.rsplit(self, sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[Traced]:  # type: ignore[override]
        """Split as str does, each part with its runs."""
        parts, position = [], 0
        for whole, line in zip(str.splitlines(self, True), str.splitlines(self, keepends), strict=True):
            parts.append(self._part(position, position + len(line)))
            position += len(whole)
        return parts

    def partition(self, sep: str, /) -> tuple[Traced, Traced, Traced]:  # noqa: D102 - as str
        head, middle, _ = str.partition(self, sep)
        return self._three(len(head), len(head) + len(middle))

    def rpartition(self, sep: str, /) -> tuple[Traced, Traced, Traced]:  # noqa: D102 - as str
        head, middle, _ = str.rpartition(self, sep)
        return self._three(len(head), len(head) + len(middle))

    def _three(self, first: int, second: int) -> tuple[Traced, Traced, Traced]:
        return self._part(0, first), self._part(first, second), self._part(second, len(self))

    # --- wholes -----------------------------------------------------------------------------------------------------

    def _joined(self, parts: Iterable[str]) -> Traced:
        return concat(parts, self._active)

    def __add__(self, other: str) -> Traced:
        """Return both, with the runs of both; markup escapes what it is added to."""
        if isinstance(other, Markup):
            return follow(str.__str__(self) + other, [self], self._active)
        return self._joined([self, other]) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> Traced:
        """Return both, with the runs of both."""
        return self._joined([other, self]) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> Traced:
        """Return the string so many times."""
        return self._joined([self] * count.__index__())

    __rmul__ = __mul__

    def join(self, parts: Iterable[str], /) -> Traced:
        """Join as str does, each part with its runs."""
        joined: list[str] = []
        for part in parts:
            joined += [self, part] if joined else [part]
        return self._joined(joined)

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> Traced:
        """Replace as str does; what replaces the old text stays text of the message that held it."""
        if not old:
            return self._changed(str.replace(self, old, new, count))
        # "a\nb".replace("\n", " "): "a" and "b" keep the offsets 0 and 2; the space is their message's, at no offset.
        pieces = self.split(old, count)
        # Not a literal of the template: it stands inside the message's own text.
        filler = new if isinstance(new, Traced) else Traced(new, [self._home(len(new))] * bool(new), self._active)
        return filler.join(pieces) if len(pieces) > 1 else self

    def _home(self, length: int) -> TextRun:
        first = self._runs[0] if self._runs else TextRun(0, None, LITERAL, -1)
        return first._replace(length=length, offset=-1)

    def _changed(self, text: str) -> Traced:
        """Return `text`, made from this string character by character: the same runs where the length allows it."""
        # "Hi".lower() stands where "Hi" stood. "straße".upper() is longer: nobody knows which S is of which letter.
        if len(text) == len(self):
            return Traced(text, self._runs, self._active)
        return Traced(text, [self._home(len(text))], self._active)

    def upper(self) -> Traced:  # noqa: D102 - as str
        return self._changed(str.upper(self))

    def lower(self) -> Traced:  # noqa: D102 - as str
        return self._changed(str.lower(self))

    def title(self) -> Traced:  # noqa: D102 - as str
        return self._changed(str.title(self))

    def capitalize(self) -> Traced:  # noqa: D102 - as str
        return self._changed(str.capitalize(self))

    def __mod__(self, values: Any) -> Traced:
        """Format as str does with ``%``, the values with their runs."""
        return percent(self, values, self._active)

    def __rmod__(self, template: str) -> Traced:
        """Format as str does with ``%``, the values with their runs."""
        return percent(template, self, self._active)

    def __hash__(self) -> int:
        """Hash as the plain string does, so that lookups go as before."""
        return str.__hash__(self)


class Safe(Markup):
    """Text of the template's own that is marked safe: it escapes what is added to it."""

    def __add__(self, other: Any) -> Any:
        """Return both, with what can be said of the runs of the other."""
        whole = super().__add__(str.__str__(other) if isinstance(other, Traced) else other)
        return follow(whole, [other], other._active) if isinstance(other, Traced) else whole

    def __radd__(self, other: Any) -> Any:
        """Return both, with what can be said of the runs of the other."""
        whole = super().__radd__(str.__str__(other) if isinstance(other, Traced) else other)
        return follow(whole, [other], other._active) if isinstance(other, Traced) else whole


def is_said(run: TextRun) -> bool:
    """Whether a run is what a message says."""
    return run.field not in (LITERAL, GIVEN)


def runs_of(text: str, active: Active) -> tuple[TextRun, ...]:
    """Return the runs of `text`; a plain string is the template's own, written for the message now active."""
    return text._runs if isinstance(text, Traced) else (TextRun(len(text), active.message, LITERAL, -1),)


def concat(parts: Iterable[str], active: Active) -> Traced:
    """Join strings, plain and traced, with their runs."""
    strings = [shown(part, active) for part in parts]
    runs = [run for part in strings for run in runs_of(part, active)]
    # Where questions are noted (see `questions`), they are of this text too, if any of it is a message's.
    kind = active.mixture if any(run.field for run in runs) else Traced
    return kind("".join(strings), _without_empty(runs), active)


def shown(value: Any, active: Active) -> str:
    """Return what Jinja prints of `value`; of anything but a text, with a note of the texts that stand in it."""
    if isinstance(value, str):
        return value
    # The text of a list is made of the `repr` of each item, and that of a Traced adds it to `repeated`.
    active.repeated.clear()
    text = str(value)
    return derived(text, list(active.repeated), active) if active.repeated else text


def _without_empty(runs: list[TextRun]) -> list[TextRun]:
    """Drop empty runs of no message; an empty run of a message says where its empty text would stand."""
    return [run for run in runs if run.length or is_said(run)]


def percent(template: str, values: Any, active: Active) -> Traced:
    """Return ``template % values`` with the runs of the values."""

    def render(given: Iterator[str]) -> str:
        return str.__mod__(str.__str__(template), substitute(values, given))

    return place(render, list(traced_in(values)), active, opaque=template)


def place(
    render: Callable[[Iterator[str]], str],
    parts: Sequence[Traced],
    active: Active,
    *,
    opaque: str = "",
    written: Callable[[str], str] = str,
) -> Traced:
    """Return what `render` makes of `parts` with their runs, found by rendering once more with marks in their stead.

    `written` says how a part stands in the text. A part that a mark cannot be put in place of (it is padded, cut,
    quoted) is searched for; what cannot be found either, or was made by a pattern `opaque` that is a message's own
    text, is `DERIVED`.
    """
    whole = render(iter([str.__str__(part) for part in parts]))
    if isinstance(opaque, Traced):
        return derived(whole, [opaque, *parts], active)
    if not parts:
        return Traced(whole, runs_of(str.__str__(whole), active), active)
    # "%s: %s" % (name, text) is "Ann: Hi", and with marks "sftplug0_: sftplug1_": so "Ann" and "Hi" are parts, and ": "
    # is the template's. "%5s" pads a name and no mark: there the two differ, and the parts are searched for.
    stem = "sftplug"
    # A row that itself says "sftplug0_" must not be taken for a mark.
    while stem in whole:
        stem += "g"
    pieces = re.split(f"{stem}(\\d+)_", render(iter([f"{stem}{number}_" for number in range(len(parts))])))
    placed: list[str] = pieces[:1]
    for number, literal in zip(pieces[1::2], pieces[2::2], strict=True):
        part = parts[int(number)]
        text = written(str.__str__(part))
        placed += [part if text == part else Traced(text, [part._home(len(text))], active), literal]
    if "".join([str.__str__(piece) for piece in placed]) == whole:
        return concat(placed, active)
    return find_parts(whole, parts, active)


def traced_in(value: Any) -> Iterator[Traced]:
    """Yield every traced string in `value`, keys too, in order."""
    if isinstance(value, Traced):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from traced_in(key)
            yield from traced_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from traced_in(item)


def substitute(value: Any, given: Iterator[str]) -> Any:
    """Return a copy of `value` with the next of `given` in place of each string that `traced_in` yields."""
    if isinstance(value, Traced):
        return next(given)
    if isinstance(value, Mapping):
        return {substitute(key, given): substitute(item, given) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([substitute(item, given) for item in value])
    return value


def find_parts(whole: str, parts: Sequence[Traced], active: Active) -> Traced:
    """Return `whole`, which was made from `parts` in order, with their runs where each stands exactly once."""
    active.lost()
    text, runs, position = str.__str__(whole), [], 0
    for part in filter(None, parts):
        # Of "Hi, she said: Hi", made of "Hi", nobody knows which of the two is the message's.
        at = text.find(part, position)
        if at < 0 or text.count(part) != 1:
            return derived(whole, parts, active)
        runs += [TextRun(at - position, active.message, LITERAL, -1), *part._runs]
        position = at + len(part)
    runs.append(TextRun(len(text) - position, active.message, LITERAL, -1))
    return Traced(whole, _without_empty(runs), active)


def follow(result: str, parts: Sequence[Traced], active: Active) -> Traced:
    """Return `result`, which something that knows nothing of runs made from `parts`, with what can be said of it."""
    active.lost()
    first, text = parts[0], str.__str__(result)
    # The same letters but for their case (``x | capitalize``): each still stands where it stood.
    if len(text) == len(first) and text.casefold() == str.casefold(first):
        return Traced(text, first._runs, active)
    return find_parts(text, parts, active)


def derived(text: str, parts: Iterable[Traced], active: Active) -> Traced:
    """Return `text`, made from `parts`: text of their message, or of none where they are of several.

    It may not stand in the span of another message, and it does not count as what its own message says.
    """
    active.lost()
    runs = [run for part in parts for run in part._runs]
    owners = {run.message for run in runs if is_said(run)}
    owner = next(iter(owners)) if len(owners) == 1 else None
    field = DERIVED if owners else GIVEN if any(run.field for run in runs) else LITERAL
    return Traced(text, [TextRun(len(text), owner, field, -1)], active)
