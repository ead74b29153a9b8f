"""Find the ways in which a text can be read as a reply of a given form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from sftplug.data.parse.forms import NAME, ArgumentsForm, CallForm, Form, ValueForm
from sftplug.data.parse.values import Unreadable, read_object, unescaped

STEPS = 3000
"""So many places are looked at for the readings of one text in one form."""
LONGEST_NAME = 200
_BARE_KEY = re.compile(r"[^\s(){}\[\]<>:=,\"'`]+")
"""The name of an argument that a template writes without quotation marks."""
_ID_WITH_NAME = re.compile(r"(?:functions\.)?([\w.\-]+):\d+")
"""An id that holds the name of the tool: ``functions.weather:0``."""
MOST_CALLS = 100

Types = Mapping[str, Mapping[str, frozenset[str]]]
"""Tool -> argument -> the JSON types that its schema allows, as far as it says."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call as it was read."""

    name: str
    arguments: dict[str, Any] | str
    id: str | None = None
    untyped: tuple[str, ...] = ()
    """Arguments that could be texts as well: the template writes no quotation marks, and no schema says."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text may say."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """Of ``reasoning`` and ``content``."""
    calls: tuple[Called, ...] = ()


@dataclass(slots=True)
class Matcher:
    """Reads one text."""

    text: str
    types: Types
    loose: bool
    """Whether white space may be other than the template's."""
    cut: bool
    """Whether the text may end within its last words."""
    steps: int = STEPS

    def readings(self, form: Form, call: CallForm | None) -> Iterator[Reading]:
        """Yield the readings of the text in a form."""
        begin = self._at(form.literals[0], 0)
        if begin is not None:
            yield from self._slots(form, call, 0, begin, Reading())

    def _slots(self, form: Form, call: CallForm | None, index: int, at: int, found: Reading) -> Iterator[Reading]:
        if index == len(form.slots):
            if at == len(self.text):
                yield found
            return
        slot, after, last = form.slots[index], form.literals[index + 1], index + 1 == len(form.slots)
        if slot == "calls":
            assert call is not None
            for calls, end in self._calls(call, at, 1):
                for rest in self._after(after, end):
                    yield from self._slots(form, call, index + 1, rest, replace(found, calls=tuple(calls)))
            return
        for end, rest in self._ends(after, at, last=last):
            if slot == "reasoning" and not self.text[at:end].strip():
                continue  # an empty thought is what templates write where there is none
            texts = {**found.texts, slot: self.text[at:end]}
            yield from self._slots(form, call, index + 1, rest, replace(found, texts=texts))

    def _ends(self, after: str, at: int, *, last: bool) -> Iterator[tuple[int, int]]:
        """Yield where a text that begins at `at` may end, and where what stands after it ends."""
        if not last:
            yield from self._find(after, at)
            return
        if self.text.endswith(after) and len(self.text) - len(after) >= at:
            yield len(self.text) - len(after), len(self.text)
        elif self.loose:
            yield from ((start, end) for start, end in self._find(after, at) if end == len(self.text))
        if self.cut and after:
            yield len(self.text), len(self.text)

    def _after(self, literal: str, at: int) -> Iterator[int]:
        """Yield where `literal`, which stands after calls, ends; of a text that is cut, white space may be missing."""
        end = self._at(literal, at)
        if end is not None:
            yield end
        elif not literal.strip() and at == len(self.text):
            yield at

    # --- calls ------------------------------------------------------------------------------------------------------

    def _calls(self, form: CallForm, at: int, number: int) -> Iterator[tuple[list[Called], int]]:
        for call, end in self._call(form, 0, at, {}):
            more = None if form.between is None or number == MOST_CALLS else self._at(form.between, end)
            if more is not None:
                for calls, last in self._calls(form, more, number + 1):
                    yield [call, *calls], last
            yield [call], end

    def _call(self, form: CallForm, index: int, at: int, known: dict[str, Any]) -> Iterator[tuple[Called, int]]:
        if index == len(form.parts):
            yield Called(known["name"], known["arguments"], known.get("id"), known.get("untyped", ())), at
            return
        part = form.parts[index]
        after = form.literals[index] if index < len(form.literals) else None
        for value, untyped, end in self._part(form, part, at, known, after):
            now = {**known, part: value, **({"untyped": untyped} if part == "arguments" else {})}
            if part == "id" and form.named_by_id:
                name = _ID_WITH_NAME.fullmatch(value)
                if name is None:
                    continue
                now["name"] = name[1]
            rest = end if after is None else self._at(_named(after, now), end)
            if rest is not None:
                yield from self._call(form, index + 1, rest, now)

    def _part(
        self, form: CallForm, part: str, at: int, known: Mapping[str, Any], after: str | None
    ) -> Iterator[tuple[Any, tuple[str, ...], int]]:
        if part != "arguments":
            yield from ((word, (), at + len(word)) for word in self._words(at, after, known))
        elif form.arguments is None:
            try:
                end = read_object(self.text, at)
            except Unreadable:
                return
            yield self.text[at:end], (), end
        else:
            yield from self._arguments(form.arguments, at, self.types.get(known.get("name", ""), {}))

    def _words(self, at: int, after: str | None, known: Mapping[str, Any]) -> Iterator[str]:
        """Yield what may be the name or id that begins at `at`."""
        if after is None:
            found = re.compile(r"[\w.:\-]+").match(self.text, at)
            yield from [found[0]] if found else []
            return
        until = _named(after, known).partition(NAME)[0]
        for end, _ in self._find(until, at):
            if end - at > LONGEST_NAME or "\n" in self.text[at:end]:
                return
            if end > at:
                yield self.text[at:end]

    # --- arguments --------------------------------------------------------------------------------------------------

    def _arguments(
        self, form: ArgumentsForm, at: int, types: Mapping[str, frozenset[str]]
    ) -> Iterator[tuple[dict[str, Any], tuple[str, ...], int]]:
        first = self._at(form.opening, at)
        if first is not None:
            yield from self._items(form, first, types, {}, ())
        none = self._at(form.none, at)
        if none is not None:
            yield {}, (), none

    def _items(
        self,
        form: ArgumentsForm,
        at: int,
        types: Mapping[str, frozenset[str]],
        found: dict[str, Any],
        untyped: tuple[str, ...],
    ) -> Iterator[tuple[dict[str, Any], tuple[str, ...], int]]:
        bare = form.text.before == form.other.before
        for key, kind, begin in self._keys(form, at, types):
            if key in found:
                continue
            for value, end in self._values(form, kind, begin):
                now = {**found, key: value}
                open_ = bare and kind is form.other and not types.get(key) and not isinstance(value, str)
                unsure = (*untyped, key) if open_ else untyped
                more = self._at(kind.between, end)
                if more is not None:
                    yield from self._items(form, more, types, now, unsure)
                last = self._at(kind.after, end)
                if last is not None:
                    yield now, unsure, last

    def _keys(
        self, form: ArgumentsForm, at: int, types: Mapping[str, frozenset[str]]
    ) -> Iterator[tuple[str, ValueForm, int]]:
        """Yield a key that begins at `at`, a form that its value may have, and where the value begins."""
        bare = form.text.before == form.other.before
        # Of "word='tide'" both "=" and "='" stand before a value: what reads quotation marks itself reads escapes too.
        for before in dict.fromkeys([form.other.before, form.text.before]):
            for end, begin in self._find(before, at):
                written = self.text[at:end]
                if len(written) > LONGEST_NAME or "\n" in written:
                    break
                try:
                    key = unescaped(written, form.codec)
                except Unreadable:
                    continue
                if form.codec == "raw" and not _BARE_KEY.fullmatch(key):
                    break
                for kind in _kinds(form, types.get(key, frozenset()), bare=bare):
                    if kind.before == before:
                        yield key, kind, begin

    def _values(self, form: ArgumentsForm, kind: ValueForm, at: int) -> Iterator[tuple[Any, int]]:
        if kind is form.other:
            try:
                yield form.reader.read(self.text, at)
            except Unreadable:
                return
            return
        stops = dict.fromkeys([kind.between, kind.after or form.following[:1]])
        ends = sorted({end for stop in stops if stop for end, _ in self._find(stop, at)})
        for end in ends:
            try:
                yield unescaped(self.text[at:end], form.codec), end
            except Unreadable:
                continue

    # --- literals ---------------------------------------------------------------------------------------------------

    def _at(self, literal: str, at: int) -> int | None:
        """Return where `literal` ends, if it stands at `at`."""
        self.steps -= 1
        if self.steps < 0:
            return None
        if not self.loose:
            return at + len(literal) if self.text.startswith(literal, at) else None
        found = _loose(literal).match(self.text, at)
        return None if found is None else found.end()

    def _find(self, literal: str, at: int) -> Iterator[tuple[int, int]]:
        """Yield where `literal` stands from `at` on: start and end."""
        if not literal:
            return
        pattern = _loose(literal) if self.loose else None
        while self.steps > 0:
            self.steps -= 1
            if pattern is not None:
                found = pattern.search(self.text, at)
                start, end = found.span() if found else (-1, -1)
            else:
                start = self.text.find(literal, at)
                end = start + len(literal)
            if start < 0:
                return
            yield start, end
            at = start + 1


def _named(literal: str, known: Mapping[str, Any]) -> str:
    """Return `literal` with the name of the call in its places, where it is known already."""
    return literal.replace(NAME, known["name"]) if "name" in known else literal


def _kinds(form: ArgumentsForm, types: frozenset[str], *, bare: bool) -> list[ValueForm]:
    """Return the forms of a value in the order in which they are tried: where nothing but the type tells, by it."""
    if bare and types and types <= {"string"}:
        return [form.text]
    return [form.other, form.text]


@lru_cache(maxsize=1024)
def _loose(literal: str) -> re.Pattern[str]:
    """Return what finds `literal` with other white space, or none, in the place of its own."""
    return re.compile(r"\s*".join(re.escape(word) for word in re.split(r"\s+", literal)))
