"""Rows of JSON, of comma-separated values and of text, read as they were written.

Not through Arrow, for two reasons: the line number is known, and what comes out is what went in. Arrow has one type a
column, so reading JSON through it fills missing keys with null and fails on tool calls whose arguments differ in type;
and the reader of tables that it comes with takes the cell ``007`` for 7, and ``NA`` or ``null`` for nothing at all.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import IO, Any

from sftplug import DataError, Row
from sftplug_sources.stored import Stored


def _text(file: Stored) -> IO[str]:
    # A byte order mark is no part of the first key's name.
    return io.TextIOWrapper(file.open_decompressed(), encoding="utf-8-sig", newline="\n")


def _read_jsonl(file: Stored) -> Iterator[Row]:
    name = file.name
    with _text(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                origin = f"{name}:{number}"
                yield _object(_parse(line.rstrip("\r\n"), origin), origin)


def _read_json(file: Stored) -> Iterator[Row]:
    with _text(file) as stream:
        data = _parse(stream.read(), file.name)
    if not isinstance(data, list):
        raise DataError(f"{file.name}: must hold a list of objects, not {type(data).__name__}; or name it .jsonl")
    name = file.name
    for index, row in enumerate(data):
        yield _object(row, f"{name}[{index}]")


def _parse(text: str, origin: str) -> Any:
    try:
        return _DECODER.decode(text)
    except _Doubled as error:
        raise DataError(f"{origin}: the key '{error}' stands twice in one object, and only one could be read") from None
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        hint = " If each line is a row, name it .jsonl." if line and error.msg == "Extra data" else ""
        raise DataError(f"{origin}: is not valid JSON: {error.msg} at column {error.colno}{line}.{hint}") from error
    except RecursionError as error:
        raise DataError(f"{origin}: is nested too deeply") from error
    except ValueError as error:  # of Python's own reading of numbers
        digits = sys.get_int_max_str_digits()
        raise DataError(f"{origin}: holds a whole number of more than {digits:,} digits. Write it as text.") from error


class _Doubled(Exception):
    """A key that stands twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Doubled(next(key for key in keys if keys.count(key) > 1))
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _object(row: Any, origin: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{origin}: must be an object with keys, not {type(row).__name__}")
    return Row(row, origin)


def _read_csv(file: Stored, delimiter: str) -> Iterator[Row]:
    """Yield rows of cells, each the text that it is, by the names in the first line."""
    csv.field_size_limit(sys.maxsize)  # a cell may well be longer than the 128 kB that the module allows
    name = file.name
    with _text(file) as stream:
        reader, line = csv.reader(stream, delimiter=delimiter, strict=True), 1
        try:
            header = next(reader, [])
            _refuse_doubled(header, name)
            line = reader.line_num + 1
            for cells in reader:
                if len(cells) not in (0, len(header)):
                    counts = f"the first line names {len(header)} columns, and this one has {len(cells)}"
                    raise DataError(f"{name}:{line}: {counts}")
                if cells:
                    yield Row(dict(zip(header, cells, strict=True)), f"{name}:{line}")
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{name}:{line}: cannot be read as comma-separated values: {error}") from error


def _refuse_doubled(header: list[str], name: str) -> None:
    doubled = [column for column in header if header.count(column) > 1]
    if doubled:
        raise DataError(f"{name}:1: two columns are named '{doubled[0]}'")


def _read_text(file: Stored) -> Iterator[Row]:
    name = file.name
    with _text(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield Row({"text": line.rstrip("\r\n")}, f"{name}:{number}")


READERS: Mapping[str, Callable[[Stored], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": partial(_read_csv, delimiter=","),
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".txt": _read_text,
}
"""Ending -> reader."""
