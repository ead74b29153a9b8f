"""Rows of JSON, of comma-separated values and of text, read as they were written.

Not through Arrow, for two reasons: the line number is known, and what comes out is what went in. Arrow has one type a
column, so reading JSON through it fills missing keys with null and fails on tool calls whose arguments differ in type;
and the reader of tables that it comes with takes the cell ``007`` for 7, and ``NA`` or ``null`` for nothing at all.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from sftplug import DataError, Row, did_you_mean
from sftplug_sources.stored import Stored

_UNFINISHED = "The file ends within it: whatever wrote it was stopped. Leave the line out, or write the file anew."
"""What to say of a last line that is not a whole row, and that no line break ends."""


def _lines(file: Stored) -> Iterator[str]:
    """Yield the lines, each with the line break that ends it. Raises DataError naming line and byte."""
    at = 0
    with file.open_decompressed() as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(error, at, f"{file.name}:{number}") from error
            yield text if at else text.removeprefix("\ufeff")
            at += len(line)


def _not_utf8(error: UnicodeDecodeError, at: int, origin: str) -> DataError:
    """Return what to say of a line that begins at byte `at` of the file."""
    where = f"{error.reason} at byte {at + error.start:,}"
    cut = error.end == len(error.object) and error.reason == "unexpected end of data"
    help_ = _UNFINISHED if cut else "Convert the file first."
    return DataError(f"{origin}: is not UTF-8 text: {where} of the file. {help_}")


@dataclass(frozen=True, slots=True)
class Reading:
    """How files of text are read, where their names and what they hold do not say it."""

    field: str | None = None
    """Key under which a .json file holds its rows."""
    delimiter: str | None = None
    """What separates the cells of a .csv or .tsv file."""


def read(file: Stored, ending: str, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a file of text. Raises DataError for what cannot be read, and for an option of another kind."""
    given = {"field": (reading.field, (".json",)), "delimiter": (reading.delimiter, (".csv", ".tsv"))}
    for name, (value, endings) in given.items():
        if value is not None and ending not in endings:
            raise DataError(f"{file.name}: `{name}` is for {' and '.join(endings)} files. Leave it out.")
    yield from _READERS[ending](file, reading)


def _read_jsonl(file: Stored, reading: Reading) -> Iterator[Row]:
    if _is_list(file):
        yield from _read_whole(file, reading)
        return
    name = file.name
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            origin = f"{name}:{number}"
            yield _object(_parse(line.rstrip("\r\n"), origin, ended=line.endswith("\n")), origin)


def _rows_in(data: object) -> str:
    """Return what to do about one object: ``{"data": [{...}, {...}]}`` holds rows, ``{"prompt": ...}`` is one."""
    if not isinstance(data, dict):
        return ""
    within = [key for key, value in data.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    # The turns of a conversation are objects too: it is one row.
    if within and within[0] not in ("messages", "conversations", "conversation"):
        return f" The list under {within[0]!r} seems to be the rows: `field: {within[0]}` reads it."
    return " If it is one row, put brackets around it."


def _read_json(file: Stored, reading: Reading) -> Iterator[Row]:
    """Yield the rows of a list, or of lines: many files of lines are called .json."""
    first, second = _first_two(file)
    lines = reading.field is None and second.lstrip().startswith("{") and _is_object(first)
    yield from _read_jsonl(file, reading) if lines else _read_whole(file, reading)


def _first_two(file: Stored) -> tuple[str, str]:
    """Return the first two lines that are not blank, empty where there are none."""
    first, second, *_ = [*islice((line for line in _lines(file) if line.strip()), 2), "", ""]
    return first, second


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):  # a number of too many digits is told when it is read
        return False


def _is_list(file: Stored) -> bool:
    """Whether a file of lines holds a list instead, of objects: its first line does not end what it begins."""
    first, second = _first_two(file)
    start = first.strip()
    return start.startswith("[") and (start == "[" or (start.startswith("[{") and not (second and start.endswith("]"))))


def _read_whole(file: Stored, reading: Reading) -> Iterator[Row]:
    name, text = file.name, "".join(_lines(file))
    data = _parse(text, name, ended=False)
    if reading.field is not None:
        data = _under(data, reading.field, name)
    if not isinstance(data, list):
        raise DataError(f"{name}: must hold a list of objects, not {type(data).__name__}.{_rows_in(data)}")
    for index, row in enumerate(data):
        yield _object(row, f"{name}[{index}]")


def _under(data: Any, field: str, name: str) -> Any:
    """Return the list under a key of the object that a file holds."""
    if not isinstance(data, dict):
        raise DataError(f"{name}: holds a list, and no object with the key '{field}'. Leave `field` out.")
    if not isinstance(data.get(field), list):
        lists = [key for key, value in data.items() if isinstance(value, list)]
        known = f" Lists stand under: {', '.join(lists)}." if lists else ""
        raise DataError(f"{name}: holds no list under '{field}'.{did_you_mean(field, lists)}{known}")
    return data[field]


def _parse(text: str, origin: str, *, ended: bool) -> Any:
    """Return the value of JSON `text`; `ended` says that something stands after it, so it cannot be cut off."""
    try:
        if text.startswith("{"):  # as nearly every line does: nothing stands around the object
            value, end = _DECODER.raw_decode(text)
            if end == len(text):
                return value
        return _DECODER.decode(text)
    except _Doubled as error:
        raise DataError(f"{origin}: the key '{error}' stands twice in one object, and only one could be read") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{origin}: is not valid JSON: {_complaint(error, ended)}") from error
    except RecursionError as error:
        raise DataError(f"{origin}: is nested too deeply") from error
    except ValueError as error:  # of Python's own reading of numbers
        digits = sys.get_int_max_str_digits()
        raise DataError(f"{origin}: holds a whole number of more than {digits:,} digits. Write it as text.") from error


def _complaint(error: json.JSONDecodeError, ended: bool) -> str:
    line = f", line {error.lineno}" if error.lineno > 1 else ""
    hint = f" {_UNFINISHED}" if not ended and _is_cut_off(error) else ""
    return f"{error.msg} at column {error.colno}{line}.{hint}"


def _is_cut_off(error: json.JSONDecodeError) -> bool:
    """Whether the text might be valid JSON if it went on."""
    rest = error.doc[error.pos :].strip()
    begun = any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    return error.msg.startswith("Unterminated string") or begun or ("escape" in error.msg and len(rest) < 6)


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


def _read_csv(file: Stored, reading: Reading, delimiter: str) -> Iterator[Row]:
    """Yield rows of cells, each the text that it is, by the names in the first line."""
    delimiter = reading.delimiter or delimiter
    csv.field_size_limit(sys.maxsize)  # a cell may well be longer than the 128 kB that the module allows
    name = file.name
    lines, line = _Last(_lines(file)), 1
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        _refuse_doubled(header, name)
        _refuse_other_separator(header, name)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) not in (0, len(header)):
                counts = f"the first line names {len(header)} columns, and this one has {len(cells)}"
                help_ = "" if lines.last.endswith("\n") or len(cells) > len(header) else f". {_UNFINISHED}"
                raise DataError(f"{name}:{line}: {counts}{help_}")
            if cells:
                yield Row(dict(zip(header, cells, strict=True)), f"{name}:{line}")
            line = reader.line_num + 1
    except csv.Error as error:
        help_ = f". {_UNFINISHED}" if str(error) == "unexpected end of data" else ""
        raise DataError(f"{name}:{line}: cannot be read as comma-separated values: {error}{help_}") from error


def _refuse_other_separator(header: list[str], name: str) -> None:
    """Raise DataError for a first line such as ``question;answer``, as spreadsheets write it in many countries."""
    found = re.fullmatch(r"[\w ]+([;|\t])[\w ]+(?:\1[\w ]+)*", header[0]) if len(header) == 1 else None
    if found:
        raise DataError(
            f"{name}: the columns of its first line are separated by {found[1]!r}. Say so with "
            f"`delimiter: {json.dumps(found[1])}`."
        )


class _Last:
    """Lines, of which the last one read is remembered."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self.last = lines, ""

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.last = line
            yield line


def _refuse_doubled(header: list[str], name: str) -> None:
    doubled = [column for column in header if header.count(column) > 1]
    if doubled:
        raise DataError(f"{name}:1: two columns are named '{doubled[0]}'")


def _read_text(file: Stored, reading: Reading) -> Iterator[Row]:
    name = file.name
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            yield Row({"text": line.rstrip("\r\n")}, f"{name}:{number}")


_READERS: Mapping[str, Callable[[Stored, Reading], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": partial(_read_csv, delimiter=","),
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".txt": _read_text,
}
"""Ending -> reader."""
ENDINGS = tuple(_READERS)
"""Endings of files of text that are read."""
