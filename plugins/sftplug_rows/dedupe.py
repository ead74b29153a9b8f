"""Rows that say the same as others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Literal

from sftplug import Dropped, Field, Made, Row, RowContext, RowError, StreamProcessor, require
from sftplug_rows.texts import chosen, texts_in, words_of

PERMUTATIONS = 128
"""Hash functions of a sketch: the estimate of a similarity is off by less than 0.1 nearly always."""
SHINGLE = 3
"""Words of a shingle."""


class Dedupe(StreamProcessor):
    """Drop rows that are equal to one before, or nearly so.

    Equal is what has the same columns with the same values. Of each row 16 bytes are kept, and its origin. Near are
    rows that share most of their shingles of three words, by an estimate of the Jaccard similarity with MinHash (Broder
    1997); 128 numbers are kept of each. That needs the library `rensa`: ``pip install 'sftplug[dedupe]'``.
    """

    type: Literal["dedupe"] = "dedupe"
    columns: tuple[str, ...] | None = Field(None, min_length=1)
    """Columns that are compared; all by default."""
    near: float | None = Field(None, gt=0, lt=1)
    """Least similarity, from 0 to 1, of rows that are taken for the same: 0.9 is a few words of a hundred."""
    shorthand: ClassVar[str] = "near"

    def fingerprint(self) -> str:
        """Return the version of the library, where it decides what is near."""
        if self.near is None:
            return ""
        try:
            return version("rensa")
        except PackageNotFoundError:
            return "none"

    def stream(self, rows: Iterator[Row], context: RowContext) -> Iterator[Row | Made | Dropped]:
        """Pass on the first of those that are the same."""
        find = _equal() if self.near is None else _near(self.near)
        for row in rows:
            try:
                same = find(chosen(row.data, self.columns), row.origin)
            except RowError as error:
                yield Dropped(error, row)
                continue
            yield row if same is None else Dropped(same, row)


Find = Callable[[Mapping[str, Any], str], str | None]
"""Returns what a row is the same as, with its origin; else notes the row and returns None."""


def _equal() -> Find:
    seen: dict[bytes, str] = {}

    def find(data: Mapping[str, Any], origin: str) -> str | None:
        try:
            text = json.dumps(data, sort_keys=True, ensure_ascii=True, default=repr)
        except (ValueError, RecursionError) as error:
            raise RowError("row", f"cannot be compared: {error}") from error
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key in seen:
            return f"is equal to {seen[key]}"
        seen[key] = origin
        return None

    return find


def _near(least: float) -> Find:
    rensa: Any = require("rensa", needed_by="row processor dedupe with `near`", install="pip install 'sftplug[dedupe]'")
    sketches: list[Any] = []
    origins: list[str] = []
    table = rensa.RMinHashLSH(threshold=least, num_perm=PERMUTATIONS, num_bands=bands(least))

    def find(data: Mapping[str, Any], origin: str) -> str | None:
        sketch = rensa.RMinHash(num_perm=PERMUTATIONS, seed=0)
        sketch.update(shingles(data))
        # The most alike, and of several the first: of (0.95, -4) and (0.95, -9) the former is larger.
        alike = ((sketch.jaccard(sketches[index]), -index) for index in table.query(sketch))
        similarity, index = max(alike, default=(0.0, 0))
        if similarity >= least:
            return f"is near {origins[-index]} ({similarity:.0%} alike)"
        table.insert(len(sketches), sketch)
        sketches.append(sketch)
        origins.append(origin)
        return None

    return find


def bands(least: float) -> int:
    """Return in how many bands sketches are cut, so that at most 1 in 10,000 rows of the least similarity is missed.

    Rows meet if one band is equal: with b bands of r numbers, with the chance ``1 - (1 - s**r)**b``.
    """
    few = (1 << power for power in range(PERMUTATIONS.bit_length()))
    return next((b for b in few if (1 - least ** (PERMUTATIONS // b)) ** b <= 1e-4), PERMUTATIONS)


def shingles(data: Mapping[str, Any]) -> list[str]:
    """Return every three words of a row that follow each other; of a shorter one all its words together."""
    words = [word for text in texts_in(data) for word in words_of(text)]
    return [" ".join(words[start : start + SHINGLE]) for start in range(max(len(words) - SHINGLE + 1, 1))]
