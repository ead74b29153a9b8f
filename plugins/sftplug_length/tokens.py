"""Policies that look at a row's length alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import Conversation, Field, LengthPolicy, LongRow

if TYPE_CHECKING:
    from sftplug import Recipe


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


class Chunks(LengthPolicy):
    """Cut plain text into rows of `max_length` tokens: nothing of it is lost. A longer conversation is left out.

    What a chunk repeats of the one before it, its `overlap`, is read and not trained a second time. The first token of
    a chunk without any is read, and predicted by none.
    """

    type: Literal["chunks"] = "chunks"
    overlap: int = Field(0, ge=0)
    """So many tokens at the end of a chunk begin the next one too: its first words have something before them."""
    shorthand: ClassVar[str] = "overlap"

    def check(self, recipe: Recipe) -> Iterator[str]:
        """Say so when a chunk would hold nothing that is new."""
        limit = recipe.data.max_length
        if limit is not None and self.overlap >= limit:
            yield f"`overlap` must be less than `data.max_length`, which is {limit}. Lower it."

    def shorten(self, row: LongRow) -> Sequence[slice]:
        """Return the stretches, each as long as may be; none of a row that is no document."""
        if any(message.role != "document" for message in row.conversation.messages):
            return ()
        starts = range(0, max(row.length - self.overlap, 1), max(row.limit - self.overlap, 1))
        return [slice(start, min(start + row.limit, row.length)) for start in starts]
