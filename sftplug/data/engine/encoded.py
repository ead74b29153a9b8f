"""The tokens of many texts in flat arrays."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


class EncodedTexts(NamedTuple):
    """The tokens of T texts, one after another in flat arrays."""

    ids: IntArray
    """(N,) token ids."""
    counts: NDArray[np.int64]
    """(T,) how many tokens each text has."""
    start: IntArray
    """(N,) character of its text at which a token starts."""
    end: IntArray
    """(N,) character of its text before which a token ends."""

    def bounds(self) -> NDArray[np.int64]:
        """Return (T + 1,) where the tokens of each text start."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def with_rows(self, rows: Mapping[int, EncodedTexts]) -> EncodedTexts:
        """Return the same with the tokens of some texts replaced."""
        if not rows:
            return self
        bounds = self.bounds()
        pieces = [rows.get(index) or self.row(bounds[index], bounds[index + 1]) for index in range(len(self.counts))]
        return together(pieces)

    def rows(self) -> list[EncodedTexts]:
        """Return the tokens of each text apart."""
        return [self.row(low, high) for low, high in itertools.pairwise(self.bounds())]

    def row(self, low: int, high: int) -> EncodedTexts:
        """Return the tokens from `low` to `high`, which are those of one text."""
        here = slice(int(low), int(high))
        return EncodedTexts(self.ids[here], np.array([high - low]), self.start[here], self.end[here])


def together(pieces: Sequence[EncodedTexts]) -> EncodedTexts:
    """Return the tokens of all texts of `pieces`."""
    if not pieces:
        nothing = np.zeros(0, np.int32)
        return EncodedTexts(nothing, np.zeros(0, np.int64), nothing, nothing)
    return EncodedTexts(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))
