"""Policies that look at a row's length alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from sftplug import Conversation, LengthPolicy, LongRow


class Error(LengthPolicy):
    """Stop the run: no row may be too long."""

    type: Literal["error"] = "error"
    refuses: ClassVar[bool] = True
    shortens: ClassVar[bool] = False

    def shorten(self, row: LongRow) -> Sequence[Conversation]:
        """Keep nothing."""
        return ()


class Drop(LengthPolicy):
    """Leave the row out, and count it."""

    type: Literal["drop"] = "drop"
    shortens: ClassVar[bool] = False

    def shorten(self, row: LongRow) -> Sequence[Conversation]:
        """Keep nothing."""
        return ()


class Truncate(LengthPolicy):
    """Cut the row's tokens, wherever that is: an answer may lose its end, and the model does not learn to end it."""

    type: Literal["truncate"] = "truncate"
    side: Literal["start", "end"] = "end"
    """Where tokens are cut off."""
    shorthand: ClassVar[str] = "side"
    limited: ClassVar[bool] = False

    def shorten(self, row: LongRow) -> slice:
        """Keep as many tokens as fit."""
        return slice(0, row.limit) if self.side == "end" else slice(row.length - row.limit, row.length)
