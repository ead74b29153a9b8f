"""Token rows on disk: written a batch at a time, read back without copying. No data set has to fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("weights", pa.list_(pa.float32())),
        ("provenance", pa.list_(pa.uint16())),
    ]
)
_BATCH = 1000


class TableWriter:
    """Writes an Arrow stream, the format in which `datasets` keeps its own."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        """Open `file` for writing."""
        self._sink = pa.OSFile(str(file), "wb")
        self._writer = pa.ipc.new_stream(self._sink, schema)
        self._schema = schema

    def write(self, columns: Sequence[pa.Array]) -> None:
        """Append a batch of rows."""
        self._writer.write_batch(pa.record_batch(list(columns), schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()


def lists(flat: NDArray[Any], counts: Sequence[int] | NDArray[Any]) -> pa.ListArray:
    """Return rows of `counts` values each; the flat array goes in as it is, cut by offsets."""
    # 32 bits are enough for a batch; the table of all batches may hold more tokens than that.
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(_array(offsets), _array(flat))


def texts(items: Iterable[str]) -> pa.StringArray:
    """Return texts as Arrow has them; without `pyarrow.array`, for the reason that `_array` tells."""
    written = [item.encode() for item in items]
    ends = np.cumsum([0, *map(len, written)]).astype(np.int32)
    return pa.StringArray.from_buffers(len(written), pa.py_buffer(ends), pa.py_buffer(b"".join(written)))


def _array(numbers: NDArray[Any]) -> pa.Array:
    """Return numbers as Arrow has them, not copied. `pyarrow.array` would import pandas first, to ask what they are."""
    kind = pa.from_numpy_dtype(numbers.dtype)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])


def row_sums(flat: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (R,) the sum over each of R rows that lie end to end; exactly 0 where every number of a row is."""
    # Over a row of zeros the running sum does not move, so the difference is 0 to the bit.
    running = np.concatenate([[0.0], np.cumsum(flat, dtype=np.float64)])
    return np.diff(running[np.concatenate([[0], np.cumsum(lengths)])])


def are_weighted(weights: NDArray[np.float32]) -> bool:
    """Whether some weight is neither 0 nor 1."""
    return bool(np.any((weights != 0) & (weights != 1)))


class RowSizes(NamedTuple):
    """What R rows measure."""

    lengths: NDArray[np.int64]
    """(R,) tokens."""
    trained: NDArray[np.float64]
    """(R,) sums of the loss weights."""


class Columns(NamedTuple):
    """The tokens of R rows, end to end: N in all."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    provenance: NDArray[np.uint16]
    """Source, role and part of each; see `TokenBatch.provenance`."""

    def where(self, chosen: NDArray[np.bool_]) -> Columns:
        """Return only the tokens that `chosen`, of shape (N,), is true for."""
        return Columns(self.ids[chosen], self.weights[chosen], self.provenance[chosen])


@dataclass(frozen=True, slots=True)
class Measures:
    """What there is to know of R rows without reading them."""

    lengths: NDArray[np.int64]
    """(R,) tokens."""
    trained: NDArray[np.float64]
    """(R,) sums of the loss weights."""
    weighted: bool
    """Whether some weight is neither 0 nor 1."""


class TokenWriter:
    """Writes token rows with their labels, and measures them."""

    def __init__(self, file: Path) -> None:
        """Open `file` for writing."""
        self._table = TableWriter(file, TOKENS)
        self._lengths: list[NDArray[np.int64]] = []
        self._trained: list[NDArray[Any]] = []
        self._weighted = False
        self.rows = 0

    def write(self, columns: Columns, sizes: RowSizes, kept: NDArray[np.bool_]) -> None:
        """Append those of R rows that are `kept`; `columns` hold the tokens of all of them, `sizes` measures."""
        lengths, trained = sizes
        if not kept.all():
            chosen = np.repeat(kept, lengths)
            columns, lengths, trained = columns.where(chosen), lengths[kept], trained[kept]
        ids, weights, provenance = columns
        labels = np.where(weights > 0, ids, np.int32(IGNORED))
        self._table.write([lists(flat, lengths) for flat in (ids, labels, weights, provenance)])
        self._lengths.append(lengths)
        self._trained.append(trained)
        self._weighted = self._weighted or are_weighted(weights)
        self.rows += len(lengths)

    def close(self) -> Measures:
        """Finish the file, and return what is known of its rows."""
        self._table.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        trained = np.concatenate(self._trained) if self._trained else np.zeros(0)
        return Measures(lengths, trained, self._weighted)


class StoredRows:
    """Any row of a written file, in any order."""

    def __init__(self, file: Path) -> None:
        """Map `file` into memory."""
        # Hardly anything is read yet: the arrays are views of the file, whose pages come when they are looked at.
        table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
        self._columns = {name: _flat_chunks(table[name]) for name in table.column_names}
        sizes = [len(chunk) for chunk in table[0].chunks]
        self._first = np.cumsum([0, *sizes])

    def take(self, column: str, rows: Iterable[int]) -> list[NDArray[Any]]:
        """Return the values of `rows` in `column`."""
        indices = np.fromiter(rows, dtype=np.int64)
        # With batches of 500 and 300 rows, row 620 is row 120 of the second.
        chunks = np.searchsorted(self._first, indices, side="right") - 1
        found = []
        for row, chunk in zip((indices - self._first[chunks]).tolist(), chunks.tolist(), strict=True):
            values, offsets = self._columns[column][chunk]
            found.append(values[offsets[row] : offsets[row + 1]])
        return found


def _flat_chunks(column: pa.ChunkedArray) -> list[tuple[NDArray[Any], NDArray[np.int32]]]:
    return [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in column.chunks]


def rearrange(source: Path, target: Path, rows: Sequence[int] | NDArray[np.int64]) -> None:
    """Write the `rows` of one file to another, in that order and as often as they are named."""
    have, writer = StoredRows(source), TableWriter(target, TOKENS)
    for batch in batched(rows, _BATCH):
        columns = []
        for name in TOKENS.names:
            taken = have.take(name, batch)
            columns.append(lists(np.concatenate(taken), [len(item) for item in taken]))
        writer.write(columns)
    writer.close()


def batched(items: Sequence[Any] | NDArray[Any], size: int) -> Iterator[Any]:
    """Yield `items` in stretches of at most `size`."""
    # 10 items in stretches of 4 have the edges 0, 4, 8 and 10.
    return (items[low:high] for low, high in itertools.pairwise([*range(0, len(items), size), len(items)]))


def open_dataset(file: Path, *, weighted: bool, provenance: bool = False) -> Dataset:
    """Return a written file as the trainer gets it: without ``weights`` if the labels say it all.

    ``provenance`` is there only for those who split the loss by it.
    """
    from datasets import Dataset

    dataset = Dataset.from_file(str(file))
    unused = {"weights": not weighted, "provenance": not provenance}
    return dataset.remove_columns([name for name, is_unused in unused.items() if is_unused])


def longest(dataset: Dataset) -> int:
    """Return the tokens of the longest document of any row."""
    import pyarrow.compute as pc

    if "seq_lengths" in dataset.column_names:
        lengths = pc.list_flatten(dataset.data.column("seq_lengths"))
    else:
        lengths = pc.list_value_length(dataset.data.column("input_ids"))
    return int(pc.max(lengths).as_py() or 0)
