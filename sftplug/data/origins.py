"""Where the prepared rows came from, kept on disk beside them: the trainer's rows hold numbers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sftplug.data.token_table import TableWriter, texts

ORIGINS = pa.schema([("origin", pa.string())])


class OriginWriter:
    """Writes the origin of each row of a split, in the order of the rows."""

    def __init__(self, file: Path) -> None:
        """Open `file` for writing."""
        self._table = TableWriter(file, ORIGINS)

    def write(self, origins: Iterable[str]) -> None:
        """Append the origins of a batch of rows."""
        self._table.write([texts(origins)])

    def close(self) -> None:
        """Finish the file."""
        self._table.close()


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins of the training rows."""

    file: Path
    order: Sequence[Sequence[int]] | None
    """For each training row the prepared rows in it; None where each is itself."""

    def of(self, rows: Iterable[int]) -> list[str]:
        """Return the origins of training rows, ``file:line``; those of a packed row one after the other."""
        table = pa.ipc.open_stream(pa.memory_map(str(self.file))).read_all()
        prepared = [place for row in rows for place in (self.order[row] if self.order is not None else (row,))]
        return [str(origin) for origin in table["origin"].take(pa.array(prepared, type=pa.int64())).to_pylist()]
