"""Why rows were refused, left out or noted: one reason for many rows is said once, with their number and the first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ORIGINS = 3
"""So many origins are named for a reason."""
MOST = 50
"""So many reasons are told apart for each stage; what comes after counts as one."""
_ROLE = r"(?:system|developer|user|assistant|tool|document|None)"
# The apostrophe in "the row's 'a'" begins no quoted value: a letter stands before it. Of roles only a list is a value,
# not "a user turn": which role it is may be the whole reason.
_VALUES = re.compile(rf"(?<!\w)'[^']*'|\"[^\"]*\"|\d[\d,.]*(?<![,.])|\b{_ROLE}(?:, {_ROLE})+|(?<=row )\([^()]*\)")
"""What differs between rows of one reason: quoted values, numbers, the roles of a conversation, the tools of a row."""
# "columns 'a', 'b'" and "columns 'c'" are one reason: "columns …".
_LIST = re.compile("…(?:, …)+")

Reason = tuple[str, str]
"""What sort of finding it is, and a sentence."""


@dataclass(slots=True)
class RowGroup:
    """Rows that one reason concerns."""

    kind: str
    """What sort of finding it is, such as ``dropped_tools``; empty where there is but one sort."""
    text: str
    """The reason, as the first of the rows has it."""
    rows: int = 0
    """How many rows."""
    origins: list[str] = field(default_factory=list)
    """The first rows."""

    def add(self, origin: str) -> None:
        """Count a row."""
        self.rows += 1
        if len(self.origins) < ORIGINS:
            self.origins.append(origin)

    def sentence(self) -> str:
        """Return how many rows, which, and why; one row as ``file:line: reason``."""
        if self.rows == 1:
            return f"{self.origins[0]}: {self.text}"
        more = ", …" if self.rows > len(self.origins) else ""
        return f"{self.rows:,} rows ({', '.join(self.origins)}{more}): {self.text}"


@dataclass(slots=True)
class RowGroups:
    """The reasons of one stage, told apart by what is not a value of a row."""

    found: dict[str, RowGroup] = field(default_factory=dict)
    """What the reasons have in common -> the rows of each; `largest` lists them."""

    def add(self, origin: str, reasons: Iterable[Reason]) -> None:
        """Count a row for each of its `reasons`, once for those that are alike."""
        mine: dict[str, Reason] = {}
        for kind, text in reasons:
            mine.setdefault(f"{kind}: {normal(text)}", (kind, text))
        for key, (kind, text) in mine.items():
            if key not in self.found and len(self.found) >= MOST:
                key, kind, text = "", "", "other reasons"
            self.found.setdefault(key, RowGroup(kind, text)).add(origin)

    def largest(self) -> list[RowGroup]:
        """Return the groups, that of the most rows first."""
        return sorted(self.found.values(), key=lambda group: -group.rows)

    def to_state(self) -> list[dict[str, Any]]:
        """Return the groups as JSON holds them."""
        return [
            {"kind": group.kind, "rows": group.rows, "reason": group.text, "first": group.origins}
            for group in self.found.values()
        ]

    @classmethod
    def from_state(cls, state: list[dict[str, Any]]) -> RowGroups:
        """Return the groups that `to_state` wrote."""
        made = [RowGroup(item["kind"], item["reason"], item["rows"], item["first"]) for item in state]
        return cls({str(index): group for index, group in enumerate(made)})


def normal(text: str) -> str:
    """Return a reason without the values of its row."""
    return _LIST.sub("…", _VALUES.sub("…", text))
