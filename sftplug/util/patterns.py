"""Regular expressions from recipes: read as Python's `re` reads them, and sure to come to an end.

Some expressions take time that doubles with each character of a text: ``(a|aa)+$`` takes years for some hundred
letters. They may stand in the recipe of a stranger, or in one's own by mistake. So matching goes through the library
``regex``, which can be told to give up, and what it would spell out when it compiles, ``((a{99}){99}){99}``, is counted
before. ``re`` reads the expression first: what it does not know is refused, and no extension of ``regex`` is let in.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]  # what `re` made of an expression has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from sftplug.errors import DataError

if TYPE_CHECKING:
    from regex import Match
    from regex import Pattern as Compiled

SECONDS = 1.0
"""Processor time that an expression may take for one text."""
LONGEST = 10_000
"""Most characters in an expression."""
MOST_REPEATED = 10_000
"""Most pieces of an expression, those that it repeats at least so often counted each time."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression. Raises ValueError when made of a text that is none, or that repeats too much."""

    text: str
    """The expression, as Python's `re` reads it."""

    def __post_init__(self) -> None:
        _compiled(self.text)

    def finditer(self, text: str) -> Iterator[Match[str]]:
        """Yield the matches in `text`, from left to right. Raises DataError when that takes more than a second."""
        try:
            yield from _compiled(self.text).finditer(text, timeout=SECONDS)
        except TimeoutError as error:
            raise DataError(
                f"the regular expression {_short(self.text)} takes more than {SECONDS:g} s on a text of {len(text):,} "
                f"characters, {_short(text)}: it tries the same characters in too many ways. Let no repetition stand "
                "in another, and no two branches match the same: `a+$` for `(a|aa)+$`."
            ) from error


@lru_cache(maxsize=64)
def _compiled(text: str) -> Compiled[str]:
    import regex

    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST:,} characters.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that `[[:alpha:]]` is not a class of letters, `re` says in a warning only
            re.compile(text)
        repeated = _repeated(parser.parse(text))
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    if repeated > MOST_REPEATED:
        raise ValueError(f"repeats its pieces {repeated:,} times at least; {MOST_REPEATED:,} are allowed.")
    try:
        return regex.compile(_literal_braces(text), regex.VERSION0)
    except regex.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error


def _repeated(tree: Any) -> int:
    """Return how many pieces an expression has when each is written as often as it occurs at least, and once more."""
    return sum(_repeated_piece(code, argument) for code, argument in tree) or 1


def _repeated_piece(code: Any, argument: Any) -> int:
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        least, _, tree = argument
        return (int(least) + 1) * _repeated(tree)
    if code is codes.BRANCH:
        return sum(map(_repeated, argument[1]))
    if code is codes.GROUPREF_EXISTS:
        return sum(_repeated(tree) for tree in argument[1:] if tree is not None)
    inner = argument if code is codes.ATOMIC_GROUP else argument[-1] if code in _AROUND else None
    return 1 if inner is None else _repeated(inner)


_AROUND = (codes.SUBPATTERN, codes.ASSERT, codes.ASSERT_NOT)

_BRACE = re.compile(r"(\\N\{[^}]*\}|\\.)|\{(?!\d*,?\d*\})", re.DOTALL)


def _literal_braces(text: str) -> str:
    """Return `text` with a backslash before each brace that repeats nothing: `regex` reads ``x{e}`` as an error."""
    return _BRACE.sub(lambda match: match[1] or r"\{", text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
