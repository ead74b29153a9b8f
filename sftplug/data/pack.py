"""Pack documents into rows of one length, so that little is padding; nothing is cut, and documents stay apart.

Attention keeps the documents of a row apart by `position_ids` that start anew with each (transformers builds the
block-diagonal mask from them); whether the model at hand respects that is proven by `sftplug.model.packing_check`
before training.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sftplug.data.token_table import TOKENS, StoredRows, TableWriter, batched, lists
from sftplug.types.ledger import Packing
from sftplug.types.tokens import IGNORED

PACKED = pa.schema([*TOKENS, ("seq_lengths", pa.list_(pa.int32()))])
_BATCH = 500
_UNPREDICTED = {"labels": IGNORED, "weights": 0}
"""What stands at the first token of a document, which nothing predicts."""


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return rows of indices into `lengths`, each row no longer than `capacity` in sum.

    Best fit decreasing (Johnson 1973): the longest document first, each into the fullest row that still holds it; at
    most 11/9 of the least number of rows, and one. Raises ValueError for a document longer than `capacity`.
    """
    # 5, 4, 3 and 2 tokens in rows of 7: 5 and 4 open a row each, 3 fills up the second and 2 the first. Those are the
    # rows [[0, 3], [1, 2]].
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"document {index} has {length} tokens, and a row holds {capacity}")
        # Row numbers are 0 and more, so (length, -1) comes before every row with just that much room left.
        at = bisect_left(free, (length, -1))
        room, row = free.pop(at) if at < len(free) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(free, (room - length, row))
    return rows


def pack(
    source: Path, target: Path, order: NDArray[np.int64], lengths: NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int64], Packing]:
    """Write the documents of one file, in `order`, to another as rows of at most `capacity` tokens.

    `lengths` are those of the documents in the order of the file. To their columns comes ``seq_lengths``, the lengths
    of a row's documents. The first token of a document is never a label: it would be predicted from the document
    before. Return, row by row and flat, which document of the file stands where, with a -1 after each row.
    """
    rows = best_fit_decreasing(lengths[order].tolist(), capacity)
    have, writer = StoredRows(source), TableWriter(target, PACKED)
    for batch in batched(rows, _BATCH):
        documents = [[int(order[index]) for index in row] for row in batch]
        writer.write([*_columns(have, documents, lengths), _seq_lengths(documents, lengths)])
    writer.close()
    total = int(lengths[order].sum())
    fill = total / (len(rows) * capacity) if rows else 0.0
    # The rows [[0, 3], [1, 2]] are written 0, 3, -1, 1, 2, -1.
    placed = np.array([place for row in rows for place in (*(int(order[index]) for index in row), -1)], dtype=np.int64)
    return placed, Packing(len(order), len(rows), fill)


def _columns(
    have: StoredRows, documents: Sequence[Sequence[int]], lengths: NDArray[np.int64]
) -> Iterator[pa.ListArray]:
    flat = [document for row in documents for document in row]
    first = np.concatenate([[0], np.cumsum(lengths[flat])[:-1]]).astype(np.int64)
    counts = [int(lengths[list(row)].sum()) for row in documents]
    for name in TOKENS.names:
        # This copies: what `take` returns are views of the mapped file, which is not to be changed.
        values = np.concatenate(have.take(name, flat))
        if name in _UNPREDICTED:
            values[first] = _UNPREDICTED[name]
        yield lists(values, counts)


def _seq_lengths(documents: Sequence[Sequence[int]], lengths: NDArray[np.int64]) -> pa.ListArray:
    flat = [document for row in documents for document in row]
    return lists(lengths[flat].astype(np.int32), [len(row) for row in documents])
