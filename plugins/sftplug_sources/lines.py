"""Rows of JSON and of text, read as they were written.

Not through Arrow, for two reasons: the line number is known, and JSON comes out as it went in. Arrow has one type a
column, so reading JSON through it fills missing keys with null and fails on tool calls whose arguments differ in type.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
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
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise DataError(f"{origin}: is not valid JSON: {error.msg} at column {error.colno}{line}") from error
    except RecursionError as error:
        raise DataError(f"{origin}: is nested too deeply") from error


def _object(row: Any, origin: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{origin}: must be an object with keys, not {type(row).__name__}")
    return Row(row, origin)


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
    ".txt": _read_text,
}
"""Ending -> reader."""
