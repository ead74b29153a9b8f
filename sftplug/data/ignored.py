"""What a source ignores: whole columns, and keys inside of the objects that a column lists."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sftplug.types.conversation import Row


def without(row: Row, ignored: Sequence[str]) -> Row:
    """Return a row without what `ignored` names: columns, or keys: ``messages[].annotations``, ``arguments.date``.

    A column that holds the JSON text of a list is read for that; one whose name is spelled like a path is a column.
    """
    data = {name: value for name, value in row.data.items() if name not in ignored}
    for path in ignored:
        if "." in path and path not in row.data:
            data = _pruned(data, re.findall(r"\[\]|[^.\[\]]+", path))
    return Row(data, row.origin)


def _pruned(value: Any, steps: Sequence[str]) -> Any:
    """Return `value` without what `steps` lead to: keys, and ``[]`` for each member of a list."""
    head, *rest = steps
    if head == "[]":
        return [_pruned(item, rest) for item in value] if isinstance(value, list | tuple) else value
    if not isinstance(value, Mapping) or head not in value:
        return value
    if not rest:
        return {key: inner for key, inner in value.items() if key != head}
    return {**value, head: _pruned(_listed(value[head], head), rest)}


def _listed(value: Any, key: str) -> Any:
    """Return the list that a text is the JSON of; anything else, and what somebody says, as it is."""
    if not isinstance(value, str) or key in ("content", "value", "text") or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value, object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # its format says what is wrong with it
        return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key twice")
    return made
