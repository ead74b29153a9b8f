"""Pack documents into rows of one length, so that little is padding; nothing is cut, and documents stay apart.

Attention keeps the documents of a row apart by `position_ids` that start anew with each (transformers builds the
block-diagonal mask from them); whether the model at hand respects that is proven by `sftplug.probe` before training.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Packing:
    """How well documents fitted."""

    documents: int
    rows: int
    fill: float
    """Share of the rows' positions that are not padding."""


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return rows of indices into `lengths`, each row no longer than `capacity` in sum.

    Best fit decreasing (Johnson 1973): the longest document first, each into the fullest row that still holds it; at
    most 11/9 of the least number of rows, and one. Raises ValueError for a document longer than `capacity`.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"document {index} has {length} tokens, and a row holds {capacity}")
        at = bisect_left(free, (length, -1))
        room, row = free.pop(at) if at < len(free) else (capacity, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(free, (room - length, row))
    return rows


def pack(table: pa.Table, capacity: int) -> tuple[pa.Table, Packing]:
    """Return the documents of `table` packed into rows of at most `capacity` tokens.

    To its columns come ``seq_lengths`` (the documents' lengths, in order) and ``documents`` (their indices). The first
    token of a document is never a label: it would be predicted from the document before.
    """
    lengths = np.diff(table["input_ids"].combine_chunks().offsets.to_numpy())
    rows = best_fit_decreasing(lengths.tolist(), capacity)
    order = np.array([index for row in rows for index in row], dtype=np.int64)
    taken = _positions(lengths, order)
    first = np.concatenate([[0], np.cumsum(lengths[order])[:-1]]).astype(np.int64) if len(order) else order
    columns = {}
    for name in table.column_names:
        flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)[taken].copy()
        if name != "input_ids":
            flat[first] = IGNORED if name == "labels" else 0
        columns[name] = _lists(flat, [int(lengths[row].sum()) for row in rows])
    counts = [len(row) for row in rows]
    columns["seq_lengths"] = _lists(lengths[order].astype(np.int32), counts)
    columns["documents"] = _lists(order.astype(np.int32), counts)
    fill = float(lengths.sum() / (len(rows) * capacity)) if rows else 0.0
    return pa.table(columns), Packing(len(lengths), len(rows), fill)


def _positions(lengths: NDArray[np.integer], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each token of the documents in `order` stands in the flat arrays."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
    taken = lengths[order]
    before = np.concatenate([[0], np.cumsum(taken)[:-1]]) if len(taken) else taken
    shifts: NDArray[np.int64] = np.repeat(starts[order] - before, taken)
    return np.arange(int(taken.sum()), dtype=np.int64) + shifts


def _lists(flat: NDArray[np.generic], counts: Sequence[int]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(flat))
