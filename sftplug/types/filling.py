"""Texts of a row that stand for others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sftplug.errors import RowError


class TextFiller:
    """Replaces texts as they are written, in every text of a row.

    What is filled in is not searched again; where two texts begin in the same place, the longer one counts.
    """

    found: Counter[str]
    """Text -> how often it was replaced in all rows."""
    last: Counter[str]
    """The same of the last row."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """`texts` is what is searched for -> what stands there instead."""
        self._texts = texts
        # `re` takes the first of the alternatives that fits, not the longest: `$name|$name2` would find `$name` in
        # "$name2".
        self._searched = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))
        self.found, self.last = Counter(dict.fromkeys(texts, 0)), Counter()

    def fill(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row with all texts replaced; `data` itself, which is not changed, where none stands in it.

        Raises RowError for a row that is nested too deeply.
        """
        self.last = Counter()
        try:
            filled: Mapping[str, Any] = self._filled(data)
        except RecursionError as error:
            raise RowError("row", "is nested too deeply to fill anything in") from error
        self.found.update(self.last)
        return filled if self.last else data

    def missing(self) -> list[str]:
        """Return the texts that stood in no row so far."""
        return [text for text, count in self.found.items() if not count]

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._searched.sub(self._replacement, value)
        if isinstance(value, Mapping):
            return {name: self._filled(item) for name, item in value.items()}
        return [self._filled(item) for item in value] if isinstance(value, list | tuple) else value

    def _replacement(self, match: re.Match[str]) -> str:
        self.last[match.group()] += 1
        return self._texts[match.group()]
