"""Tokens with provenance: what a masking strategy sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sftplug.conversation import Conversation

PARTS = ("scaffold", "header", "content", "reasoning", "tool_call", "end_of_turn")
"""What a piece of rendered text is within its turn; arrays hold the index."""

ROLE_CODES = ("none", "system", "developer", "user", "assistant", "tool", "document")
"""Who wrote a token; arrays hold the index. ``none`` is text of the template's own."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """The tokens of many rows, one after another in flat arrays of equal length N.

    With provenance in arrays a masking strategy is a line or two::

        def weights(self, tokens):
            return tokens.trainable & (tokens.part != tokens.part_code("reasoning"))
    """

    ids: NDArray[np.int32]
    """(N,) token ids."""
    row: NDArray[np.int32]
    """(N,) index into `conversations`; ascending."""
    message: NDArray[np.int32]
    """(N,) index of the message a token belongs to, within its conversation; -1 for the template's own text."""
    role: NDArray[np.int8]
    """(N,) index into `ROLE_CODES`."""
    part: NDArray[np.int8]
    """(N,) index into `PARTS`."""
    trainable: NDArray[np.bool_]
    """(N,) True where the model itself must produce the token at inference: the trained spans of assistant turns."""
    start: NDArray[np.int32]
    """(N,) character offset in `texts[row]` where the token begins."""
    end: NDArray[np.int32]
    """(N,) character offset in `texts[row]` where the token ends (exclusive)."""
    texts: Sequence[str]
    """The rendered text of each row."""
    conversations: Sequence[Conversation]
    """The conversation of each row."""

    @staticmethod
    def role_code(name: str) -> int:
        """Return the code of a role's name. Raises ValueError for a name that `ROLE_CODES` lacks."""
        return ROLE_CODES.index(name)

    @staticmethod
    def part_code(name: str) -> int:
        """Return the code of a part's name. Raises ValueError for a name that `PARTS` lacks."""
        return PARTS.index(name)
