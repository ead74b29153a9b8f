"""Read rows, each with its origin, so that whatever happens to a row can be told to the user.

Text files are read line by line here rather than through `datasets`, for two reasons: the line number is known, and
JSON comes out as it was written. Arrow has one type a column, so reading JSON through it fills missing keys with
null and fails on tool calls whose arguments differ in type.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sftplug.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset."""

    data: Mapping[str, Any]
    origin: str
    """``file:line`` for files of lines, ``file[index]`` otherwise."""


def read_file(path: Path) -> Iterator[Row]:
    """Yield the rows of a local file; the name's ending says how to read it.

    Raises DataError naming the file and line for what cannot be read: an unknown ending, wrong encoding, broken
    JSON, a row that is no object, a file without rows.
    """
    ending = _ending(path)
    reader = _READERS.get(ending)
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise DataError(f"{path}: cannot read a '{ending}' file.{did_you_mean(ending, _READERS)} Known: {known}.")
    count = 0
    try:
        for count, row in enumerate(reader(path), start=1):  # noqa: B007 - the count is used after the loop
            yield row
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}. Convert it first."
        ) from error
    if count == 0:
        raise DataError(f"{path}: holds no rows")


def read_hub(name: str, config: str | None, split: str, revision: str | None) -> Iterator[Row]:
    """Yield the rows of a dataset on the Hub, streamed. Raises DataError when it cannot be had."""
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
        for index, row in enumerate(rows):
            yield Row(row, f"{name}/{split}[{index}]")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"dataset {name} (split {split}): {error}") from error


def _ending(path: Path) -> str:
    """Return the ending that says how to read `path`, that of a compressed file without ``.gz``."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return suffixes[-1].lower() if suffixes else path.suffix


def _open(path: Path) -> IO[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # A byte order mark is no part of the first key's name.
        return opener(path, "rt", encoding="utf-8-sig", newline="\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                origin = f"{path.name}:{number}"
                yield _object(_parse(line.rstrip("\r\n"), origin), origin)


def _read_json(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        data = _parse(file.read(), path.name)
    if not isinstance(data, list):
        raise DataError(f"{path.name}: must hold a list of objects, not {type(data).__name__}; or name it .jsonl")
    for index, row in enumerate(data):
        yield _object(row, f"{path.name}[{index}]")


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


def _read_text(path: Path) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row({"text": line.rstrip("\r\n")}, f"{path.name}:{number}")


def _read_table(builder: str, **options: Any) -> Callable[[Path], Iterator[Row]]:
    """Return a reader for a typed table, by the builder that `datasets` has for it."""

    def read(path: Path) -> Iterator[Row]:
        import datasets

        try:
            rows = datasets.load_dataset(builder, data_files=str(path), split="train", streaming=True, **options)
            for index, row in enumerate(rows):
                yield Row(row, f"{path.name}[{index}]")
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"{path.name}: cannot be read as {builder}: {error}") from error

    return read


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".txt": _read_text,
    ".csv": _read_table("csv"),
    ".tsv": _read_table("csv", sep="\t"),
    ".parquet": _read_table("parquet"),
    ".arrow": _read_table("arrow"),
}
