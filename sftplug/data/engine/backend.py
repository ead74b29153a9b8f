"""The engine of every fast tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sftplug.data.engine.encoded import EncodedTexts, IntArray, together


class Engine(Protocol):
    """Turns texts into ids."""

    def ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the ids of each text, no special tokens added."""

    def spells(self, texts: Sequence[str]) -> NDArray[np.bool_] | None:
        """Return (T,) whether the tokens of a text spell its very bytes; None if the engine does not know."""


@dataclass(frozen=True, slots=True)
class TokenizersEngine:
    """The engine of every fast tokenizer."""

    backend: Any
    """A `tokenizers.Tokenizer`."""

    def ids(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the ids of each text."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def spells(self, texts: Sequence[str]) -> None:
        """Return None: what a tokenizer does to a text before it is cut is its own business."""

    def with_offsets(self, texts: Sequence[str]) -> EncodedTexts:
        """Return ids and the tokenizer's own offsets."""
        return together(
            [_with_offsets(item) for item in self.backend.encode_batch(list(texts), add_special_tokens=False)]
        )


def _with_offsets(encoding: Any) -> EncodedTexts:
    offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    ends = offsets[:, 1]
    # Some tokenizers trim a leading space from a token's offsets; the token covers it all the same.
    covered = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
    # Of "Hello world" such a tokenizer tells 0-5 and 6-11: the second token is then from 5 to 11.
    starts = np.minimum(offsets[:, 0], covered).astype(np.int32)
    return EncodedTexts(np.array(encoding.ids, dtype=np.int32), np.array([len(ends)]), starts, ends)
