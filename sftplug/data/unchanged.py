"""Rows that do not change while they are read."""

from __future__ import annotations

from collections.abc import Iterable

from sftplug.errors import DataError
from sftplug.plugin.calls import fingerprint, label, stamp
from sftplug.plugin.components import DatasetSource


class Still:
    """Remembers how sources were before their rows are read, and refuses those that are not so afterwards."""

    def __init__(self, sources: Iterable[DatasetSource]) -> None:
        """Look at the sources; those that can tell nothing are not looked at again."""
        self._before = [(source, _state(source)) for source in sources]

    def check(self) -> None:
        """Raise DataError naming every source that has changed since.

        A file that grows while it is read would be kept under what it was before.
        """
        changed = [label(source) for source, before in self._before if before is not None and _state(source) != before]
        if changed:
            raise DataError(
                f"{', '.join(dict.fromkeys(changed))}: changed while the rows were read, so it is not sure which rows "
                "these are. Nothing was kept: run the command again once nobody writes there."
            )


def _state(source: DatasetSource) -> str | None:
    told = stamp(source)
    return fingerprint(source) if told is None else told
