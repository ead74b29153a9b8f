"""Held-out rows that are trained on too: their loss says nothing of rows that the model has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from numpy.typing import NDArray

from sftplug.data.length import Batch

if TYPE_CHECKING:
    from sftplug.recipe.model import DataSection
    from sftplug.types.ledger import Account

EQUAL = "held out and trained"


@dataclass(slots=True)
class TrainedRows:
    """Remembers the rows that are trained on: 8 bytes each, a hash of their tokens and labels."""

    _hashes: list[NDArray[np.uint64]] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Remember the rows of a batch that reach the trainer."""
        self._hashes.append(_hashes(batch, np.flatnonzero(batch.kept).tolist()))

    def compare(self, batch: Batch, data: DataSection, account: Account) -> None:
        """Tell `account` of each held-out row that is equal to a row that is trained on."""
        rows = [row for row in np.flatnonzero(batch.kept).tolist() if not batch.texts[row].added]
        known = self._hashes[0] if len(self._hashes) == 1 else np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        self._hashes = [known]
        for row in np.array(rows)[np.isin(_hashes(batch, rows), known)].tolist():
            account.note(EQUAL, batch.texts[row].origin, _sentence(data))


def _sentence(data: DataSection) -> str:
    way = "`data.process: dedupe` trains and holds out each row once"
    if not data.eval_fraction:
        way = "`data.process: decontaminate` leaves such rows out of training"
    return f"is equal to a row that is trained on; {way}."


def _hashes(batch: Batch, rows: Iterable[int]) -> NDArray[np.uint64]:
    """Return a hash of the tokens of each row, and of which of them are trained."""
    return np.fromiter(_each(batch, rows), dtype=np.uint64)


def _each(batch: Batch, rows: Iterable[int]) -> Iterator[int]:
    bounds = np.concatenate([[0], np.cumsum(batch.lengths)]).tolist()
    ids, trained = np.ascontiguousarray(batch.tokens.ids), batch.weights > 0
    for row in rows:
        part = slice(bounds[row], bounds[row + 1])
        yield xxhash.xxh3_64_intdigest(ids[part].tobytes() + trained[part].tobytes())
