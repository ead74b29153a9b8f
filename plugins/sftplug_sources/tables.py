"""Rows of Parquet and Arrow tables, as they are stored.

Not through `datasets`: a table's own schema may call a column an image or a recording, and `datasets` then opens
whatever path or address stands in it. Here a column is what its bytes say, and nothing is decoded or fetched.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from sftplug import DataError, Row, did_you_mean
from sftplug_sources.stored import Stored

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = {".parquet": "parquet", ".arrow": "arrow"}
"""Ending -> what the file is called in messages."""
_ROWS = 1000
"""So many rows are read at once."""

Convert = Callable[[Any], Any]


def read(file: Stored, ending: str, columns: tuple[str, ...] | None = None) -> Iterator[Row]:
    """Yield the rows of a table, with only `columns` if they are given. Raises DataError for what cannot be read."""
    import pyarrow as pa

    kind, index = KINDS[ending], 0
    with _opened(file) as stream:
        try:
            for batch in _BATCHES[ending](stream, columns, file.name):
                for row in _rows_of(batch, file.name, index):
                    yield Row(row, f"{file.name}[{index}]")
                    index += 1
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{file.name}: cannot be read as {kind}: {error}") from error


@contextmanager
def _opened(file: Stored) -> Iterator[IO[bytes]]:
    """Open a table, which is not read from its front; a compressed one is unpacked to a temporary file first."""
    if not file.name.lower().endswith((".gz", ".zst")):
        with file.open() as stream:
            yield stream
        return
    with tempfile.TemporaryFile(prefix="sftplug-") as unpacked:
        with file.open_decompressed() as packed:
            shutil.copyfileobj(packed, unpacked)
        unpacked.seek(0)
        yield unpacked


def _parquet(stream: IO[bytes], columns: tuple[str, ...] | None, name: str) -> Iterator[pa.RecordBatch]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(stream)
    _check_names(file.schema_arrow.names, columns, name)
    yield from file.iter_batches(_ROWS, columns=None if columns is None else list(columns))


def _arrow(stream: IO[bytes], columns: tuple[str, ...] | None, name: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        batches: Any = pa.ipc.open_stream(stream)
        schema = batches.schema
    except pa.ArrowInvalid:  # a file of the format has a head and a foot around what a stream has
        stream.seek(0)
        file = pa.ipc.open_file(stream)
        schema, batches = file.schema, (file.get_batch(index) for index in range(file.num_record_batches))
    _check_names(schema.names, columns, name)
    for batch in batches:
        batch.validate(full=True)  # offsets that lead elsewhere would be followed
        for first in range(0, batch.num_rows, _ROWS):
            part = batch.slice(first, _ROWS)
            yield part if columns is None else part.select(list(columns))


_BATCHES = {".parquet": _parquet, ".arrow": _arrow}


def _check_names(names: Sequence[str], columns: tuple[str, ...] | None, file: str) -> None:
    """Raise DataError for a name that two columns have, and for one of `columns` that none has."""
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"{file}: two columns are named '{doubled}'")
    for column in columns or ():
        if column not in names:
            raise _no_column(column, names, file)


def _rows_of(batch: pa.RecordBatch, name: str, first: int) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a batch, of which the first is row `first`. Raises DataError for text that is not UTF-8."""
    try:
        rows = _values(batch)
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            raise _not_utf8(batch, f"{name}[{first}]") from None
        for index in range(batch.num_rows):
            yield from _rows_of(batch.slice(index, 1), name, first + index)
    else:
        yield from as_stored(rows, batch.schema)


def _not_utf8(row: pa.RecordBatch, origin: str) -> DataError:
    for column in row.schema.names:
        try:
            row.column(column).to_pylist()
        except UnicodeDecodeError as error:
            where = f"{error.reason} at byte {error.start} of the text"
            return DataError(f"{origin}: column '{column}' holds text that is not UTF-8: {where}. Convert it first.")
    return DataError(f"{origin}: holds text that is not UTF-8. Convert it first.")


def _values(batch: pa.RecordBatch) -> list[Mapping[str, Any]]:
    values: list[Mapping[str, Any]] = batch.to_pylist(maps_as_pydicts="strict")
    return values


# --- values -----------------------------------------------------------------------------------------------------------


def as_stored(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[Mapping[str, Any]]:
    """Yield rows of a table without the nulls that stand for what a row did not have.

    A column of objects has one set of members for all of them, and a null wherever an object lacks one; so a null
    member is left out. A column of JSON text is what the text says, nulls and all. The columns themselves stay.
    """
    converts = {field.name: convert for field in schema if (convert := _converter(field.type)) is not None}
    for row in rows:
        yield {**row, **{name: convert(row[name]) for name, convert in converts.items()}} if converts else row


def _converter(kind: pa.DataType) -> Convert | None:
    """Return what makes of a value of this type what was written; None where it is that already."""
    import pyarrow as pa

    if isinstance(kind, pa.JsonType):
        return _given(json.loads)
    if isinstance(kind, pa.BaseExtensionType):
        return _converter(kind.storage_type)
    if pa.types.is_struct(kind):
        return _given(_objects({field.name: _converter(field.type) for field in kind}))
    if pa.types.is_dictionary(kind):
        return _converter(kind.value_type)
    if pa.types.is_map(kind):
        return _each(_converter(kind.item_type), lambda convert, value: {key: convert(value[key]) for key in value})
    inner = getattr(kind, "value_type", None)
    return None if inner is None else _each(_converter(inner), lambda convert, value: [convert(item) for item in value])


def _given(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _each(convert: Convert | None, spread: Callable[[Convert, Any], Any]) -> Convert | None:
    return None if convert is None else _given(lambda value: spread(convert, value))


def _objects(members: Mapping[str, Convert | None]) -> Convert:
    def convert(value: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: item for name, item in value.items() if item is not None}
        return {name: item if (inner := members.get(name)) is None else inner(item) for name, item in given.items()}

    return convert


# --- columns ----------------------------------------------------------------------------------------------------------


def choose_columns(rows: Iterable[Row], columns: tuple[str, ...] | None, name: str) -> Iterator[Row]:
    """Yield rows with only `columns`, if they are given. Raises DataError for one that a row does not have."""
    for row in rows:
        for column in columns or ():
            if column not in row.data:
                raise _no_column(column, row.data, name)
        yield row if columns is None else Row({column: row.data[column] for column in columns}, row.origin)


def _no_column(column: str, known: Iterable[str], name: str) -> DataError:
    hint = did_you_mean(column, known)
    return DataError(f"{name}: there is no column '{column}'.{hint} Columns: {', '.join(known)}.")
