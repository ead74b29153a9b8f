"""Rows of typed tables, by the builders that `datasets` has for them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sftplug import DataError, Row, did_you_mean
from sftplug_sources.stored import Stored

BUILDERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
}
"""Ending -> builder of `datasets`, and its options."""


def read(file: Stored, ending: str, columns: tuple[str, ...] | None) -> Iterator[Row]:
    """Yield the rows of a table, streamed. Raises DataError for what the builder cannot read."""
    import datasets

    builder, options = BUILDERS[ending]
    with _decompressed(file) as url:
        try:
            table = datasets.load_dataset(builder, data_files=url, split="train", streaming=True, **options)
            for index, row in enumerate(choose_columns(table, columns, file.name)):
                yield Row(row, f"{file.name}[{index}]")
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{file.name}: cannot be read as {builder}: {error}") from error


@contextmanager
def _decompressed(file: Stored) -> Iterator[str]:
    """Yield where the table can be read; a compressed one is unpacked to a temporary file first."""
    if not file.name.lower().endswith((".gz", ".zst")):
        yield file.url
        return
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        unpacked = Path(folder) / Path(file.name).stem
        with file.open_decompressed() as packed, unpacked.open("wb") as target:
            shutil.copyfileobj(packed, target)
        yield str(unpacked)


def choose_columns(
    rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...] | None, name: str
) -> Iterator[Mapping[str, Any]]:
    """Yield rows with only `columns`, if they are given. Raises DataError for one that a row does not have."""
    for row in rows:
        for column in columns or ():
            if column not in row:
                hint = did_you_mean(column, row)
                raise DataError(f"{name}: there is no column '{column}'.{hint} Columns: {', '.join(row)}.")
        yield row if columns is None else {column: row[column] for column in columns}
