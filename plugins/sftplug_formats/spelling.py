"""One thing under several names: which of them a turn uses, and which of its keys nobody knows."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftplug import RowError
from sftplug_formats.fields import kind_of

Keys = Mapping[str, Any]
_INDEX = re.compile(r"\[[0-9]+\]")


@dataclass(frozen=True, slots=True)
class Unread:
    """Keys of a conversation that nothing reads, named as `ignore` of a source names them."""

    found: dict[str, None] = field(default_factory=dict)

    def note(self, given: Keys, known: Container[str], where: str) -> None:
        """Note the keys of `given`, an object that stands at `where`, which are not among the `known` ones."""
        for key, value in given.items():
            if key not in known and not says_nothing(value):
                self.found[f"{_INDEX.sub('[]', where)}.{key}"] = None


def says_nothing(value: Any) -> bool:
    """Whether `value` is null or empty: what an exporter writes into every message, and means nothing by it."""
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def in_rows(value: Any) -> Any:
    """Return the objects that an object of lists of one length holds, as `datasets` had them; else the value itself.

    ``{"role": ["user"], "content": ["Hi."]}`` is ``[{"role": "user", "content": "Hi."}]``.
    """
    if (
        not isinstance(value, Mapping)
        or not value
        or not all(isinstance(cells, list | tuple) for cells in value.values())
    ):
        return value
    if len({len(cells) for cells in value.values()}) != 1:
        return value
    return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]


def present(item: Keys) -> dict[str, Any]:
    """Return what an object holds; a table has one set of keys for all turns, null where a turn lacks one."""
    return {key: value for key, value in item.items() if value is not None}


def spelled(given: Keys, names: Sequence[str], where: str) -> tuple[str, Any]:
    """Return (key, value) of the name in `names` that `given` uses; the first and None where it uses none.

    Raises RowError where two say different things.
    """
    found = [name for name in names if name in given]
    saying = [name for name in found if not says_nothing(given[name])] or found[:1] or [names[0]]
    for other in saying[1:]:
        if given[other] != given[saying[0]]:
            raise RowError(f"{where}.{other}", f"is another name for `{saying[0]}`, and says something else: keep one")
    return saying[0], given.get(saying[0])


def optional(given: Keys, key: str, where: str) -> str | None:
    """Return the text under `key`; None where there is none. Raises RowError."""
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        raise RowError(f"{where}.{key}", f"must be text, not {kind_of(value)}")
    return value
