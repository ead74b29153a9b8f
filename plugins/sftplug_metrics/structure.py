"""Metrics of replies that other programs read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from sftplug import Field, Metric, Pattern, Reply, RowError

# From the start to the end of the reply: in "Here it is: ```json …```" the words before make it no JSON.
_FENCE = re.compile(r"\A\s*```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


def _parsed(text: str, fenced: bool) -> Any:
    """Return what a JSON text says. Raises ValueError for what RFC 8259 has no words for."""
    block = _FENCE.match(text) if fenced else None
    return json.loads(block[1] if block else text, parse_constant=_no_number)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


class JsonValid(Metric):
    """1 for a reply that is a JSON text (RFC 8259) and nothing else, else 0; an empty reply is none.

    ``NaN`` and ``Infinity``, which Python reads, are not JSON. The row's own reply is not looked at.
    """

    type: Literal["json_valid"] = "json_valid"
    keys: tuple[str, ...] = ()
    """Keys that it must have, as an object; others may be there."""
    fenced: bool = False
    """Take what stands between Markdown's fences of code, where the whole reply does."""
    shorthand: ClassVar[str] = "keys"

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Parse each reply."""
        return [float(self._is_right(reply.text)) for reply in replies]

    def _is_right(self, text: str) -> bool:
        try:
            value = _parsed(text, self.fenced)
        except (ValueError, RecursionError):
            return False
        return not self.keys or (isinstance(value, dict) and all(key in value for key in self.keys))


class JsonEqual(Metric):
    """1 for a reply whose JSON says the same as the row's, else 0: order of keys, white space and escapes aside.

    1 and 1.0 are the same number, and true is none. A row whose own reply is not a JSON text is an error.
    """

    type: Literal["json_equal"] = "json_equal"
    fenced: bool = False
    """Take what stands between Markdown's fences of code, where the whole reply does."""

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Parse and compare."""
        return [float(self._equal(reply)) for reply in replies]

    def _equal(self, reply: Reply) -> bool:
        try:
            wanted = _parsed(reply.reference, self.fenced)
        except (ValueError, RecursionError) as error:
            raise RowError("reference", f"is not a JSON text: {error}") from error
        try:
            return same(_parsed(reply.text, self.fenced), wanted)
        except (ValueError, RecursionError):
            return False


def same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; Python's own comparison takes true for 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_pattern(text: str) -> str:
    return Pattern(text).text


class Regex(Metric):
    """1 for a reply in which a regular expression (Python's `re`) finds something, else 0.

    With `compare`, 1 if what it finds last is what it finds last in the row's own reply, else 0: for answers that end
    in a result, such as ``#### 42``. A row in whose reply it then finds nothing is an error.
    """

    type: Literal["regex"] = "regex"
    pattern: Annotated[str, AfterValidator(_is_pattern)] = Field(examples=["####\\s*(-?[0-9.,]+)"])
    """The expression; of its groups the first is compared, the whole match if there is none."""
    compare: bool = False
    """Compare with the row's own reply."""
    name: str = Field("regex", min_length=1)
    """What its results are called; two in one recipe need two names."""
    shorthand: ClassVar[str] = "pattern"

    @property
    def label(self) -> str:
        """What its results are called."""
        return self.name

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """Search each reply."""
        return [float(self._is_right(reply)) for reply in replies]

    def _is_right(self, reply: Reply) -> bool:
        found = self._last(reply.text)
        if not self.compare:
            return found is not None
        wanted = self._last(reply.reference)
        if wanted is None:
            raise RowError("reference", f"has nothing that {self.pattern!r} finds")
        return found == wanted

    def _last(self, text: str) -> str | None:
        last = None
        for last in Pattern(self.pattern).finditer(text):  # noqa: B007 - the last one is wanted
            pass
        if last is None:
            return None
        return str(last[1] if last.re.groups and last[1] is not None else last[0])
