"""Read a field of a row, or say exactly what is wrong with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sftplug import RowError, did_you_mean


def required_text(row: Mapping[str, Any], column: str) -> str:
    """Return the string in `column`. Raises RowError when the column is not there, or holds something else."""
    if column not in row:
        raise RowError(column, f"is missing.{did_you_mean(column, row)} The row has: {', '.join(map(str, row))}.")
    value = row[column]
    if not isinstance(value, str):
        raise RowError(column, f"must be text, not {kind_of(value)}")
    return value


def optional_text(row: Mapping[str, Any], column: str) -> str:
    """Return the string in `column`, empty when it is missing or null."""
    return "" if row.get(column) is None else required_text(row, column)


def kind_of(value: Any) -> str:
    """Return what to call the type of `value` to someone who knows JSON rather than Python."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    names = {type(None): "null", bool: "true or false", str: "text", bytes: "bytes"}
    number = isinstance(value, int | float | Decimal)
    # Tables hold dates and more, which JSON does not have.
    return names.get(type(value)) or ("a number" if number else f"a {type(value).__name__}")


def parsed_json(text: str, field: str) -> Any:
    """Return the value of the JSON `text`. Raises RowError."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, field), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise RowError(field, f"is not valid JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RowError(field, "is nested too deeply") from error
    except ValueError as error:  # a constant that JSON lacks, a whole number of more digits than Python reads
        digits = sys.get_int_max_str_digits()
        text = str(error) if isinstance(error, _NoJson) else f"holds a whole number of more than {digits:,} digits"
        raise RowError(field, text) from error


class _NoJson(ValueError):
    """A constant of Python's that JSON lacks."""


def _refuse_constant(name: str) -> Any:
    raise _NoJson(f"is not valid JSON: there is no {name} in it")


def _unique(pairs: list[tuple[str, Any]], field: str) -> dict[str, Any]:
    made, keys = dict(pairs), [key for key, _ in pairs]
    if len(made) != len(pairs):
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise RowError(field, f"holds the key '{doubled}' twice in one object, and only one could be read")
    return made


def read_arguments(row: Mapping[str, Any], column: str) -> Mapping[str, Any]:
    """Return the arguments of the chat template in `column`: an object, or the JSON text of one; nulls are left out."""
    value = row.get(column)
    if isinstance(value, str):
        value = parsed_json(value, column) if value.strip() else None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RowError(column, f"must be an object of arguments, not {kind_of(value)}")
    return {name: argument for name, argument in value.items() if argument is not None}
