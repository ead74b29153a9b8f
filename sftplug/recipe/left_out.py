"""A format that nobody has written yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sftplug.errors import RowError
from sftplug.plugin.components import DatasetFormat
from sftplug.types.conversation import Conversation


class LeftOut(DatasetFormat):
    """Stands where a recipe leaves the format out, until it is read from the rows."""

    type: Literal["left out"] = "left out"

    def to_conversation(self, row: Mapping[str, Any]) -> Conversation:
        """Raise: nobody knows what the rows look like."""
        raise RowError("format", "is left out, and was not read from the rows")
