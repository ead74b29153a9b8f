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

BUILDERS: Mapping[str, str] = {".parquet": "parquet", ".arrow": "arrow"}
"""Ending -> builder of `datasets`."""


def read(file: Stored, ending: str) -> Iterator[Row]:
    """Yield the rows of a table, streamed. Raises DataError for what the builder cannot read."""
    import datasets

    builder = BUILDERS[ending]
    with _decompressed(file) as url:
        try:
            table = datasets.load_dataset(builder, data_files=url, split="train", streaming=True)
            for index, row in enumerate(as_written(table)):
                yield Row(row, f"{file.name}[{index}]")
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{file.name}: cannot be read as {builder}: {error}") from error


def as_written(table: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a streamed dataset without the nulls that stand for what a row did not have.

    A column of objects has one set of members for all of them, and a null wherever an object lacks one; so a null
    member is left out. JSON text in a column is its own, nulls and all. The columns themselves stay.
    """
    features = table.features or {}
    nested = {name: feature for name, feature in features.items() if _has_objects(feature)}
    for row in table:
        yield {name: _without_nulls(value, nested.get(name)) for name, value in row.items()}


def _has_objects(feature: Any) -> bool:
    return isinstance(feature, Mapping) or (_item(feature) is not None and _has_objects(_item(feature)))


def _item(feature: Any) -> Any:
    """Return what a list is of; None for what is no list."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)


def _without_nulls(value: Any, feature: Any) -> Any:
    if feature is None or value is None:
        return value
    if isinstance(feature, Mapping):
        return {name: _without_nulls(value[name], feature[name]) for name in value if value[name] is not None}
    return [_without_nulls(item, _item(feature)) for item in value] if _has_objects(feature) else value


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


def choose_columns(rows: Iterable[Row], columns: tuple[str, ...] | None, name: str) -> Iterator[Row]:
    """Yield rows with only `columns`, if they are given. Raises DataError for one that a row does not have."""
    for row in rows:
        for column in columns or ():
            if column not in row.data:
                hint = did_you_mean(column, row.data)
                raise DataError(f"{name}: there is no column '{column}'.{hint} Columns: {', '.join(row.data)}.")
        yield row if columns is None else Row({column: row.data[column] for column in columns}, row.origin)
