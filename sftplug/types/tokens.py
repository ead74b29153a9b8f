"""Tokens with provenance: what a masking strategy sees, and what a length policy sees of a row that is too long."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sftplug.types.conversation import Conversation
    from sftplug.util.patterns import Pattern

PARTS = ("scaffold", "header", "content", "reasoning", "tool_call", "end_of_turn")
"""What a piece of rendered text is within its turn; arrays hold the index."""

ROLE_CODES = ("none", "system", "developer", "user", "assistant", "tool", "document")
"""Who wrote a token; arrays hold the index. ``none`` is text of the template's own."""

IGNORED = -100
"""The label that the loss leaves out (`torch.nn.CrossEntropyLoss`)."""


MOST_SOURCES = 1023
"""How many sources can be told apart in `TokenBatch.provenance`."""


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
    content_part: NDArray[np.int16]
    """(N,) index of the content part that a token is of, where the content is a list of parts; -1 elsewhere."""
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

    def where(self, chosen: NDArray[np.bool_]) -> TokenBatch:
        """Return the batch with only the tokens that `chosen`, of shape (N,), is true for."""
        arrays = ("ids", "row", "message", "role", "part", "content_part", "trainable", "start", "end")
        return replace(self, **{name: getattr(self, name)[chosen] for name in arrays})

    def provenance(self, source: int | NDArray[np.int64]) -> NDArray[np.uint16]:
        """Return (N,) one number for what a token's loss is told apart by: the source's index, role and part.

        In place of the index of one source (N,) numbers of groups may be given, which sources and tags make.

        Sources from `MOST_SOURCES` on have the same number.
        """
        import numpy as np

        # Three bits for the part, three for the role, ten for the source: content (2) of a user (3) in source 1 is 1 <<
        # 6 | 3 << 3 | 2, which is 90.
        code = np.minimum(source, MOST_SOURCES).astype(np.uint16) << 6
        code = code | self.role.astype(np.uint16) << 3 | self.part.astype(np.uint16)
        return code.astype(np.uint16)

    def per_row(self, value: Callable[[Conversation], float]) -> NDArray[np.float64]:
        """Return (N,) what `value` says of each token's conversation."""
        import numpy as np

        return np.array([value(conversation) for conversation in self.conversations], dtype=np.float64)[self.row]

    def per_message(self, values: Callable[[Conversation], Sequence[float]]) -> NDArray[np.float64]:
        """Return (N,) what `values` says of each token's message: one number a message; 1 outside of messages."""
        import numpy as np

        listed = [list(values(conversation)) for conversation in self.conversations]
        first = np.cumsum([0, *(len(numbers) for numbers in listed)])[:-1]
        # Tokens of no message look at the first number, whatever it is, before they get 1: so there must be one.
        flat = np.array([number for numbers in listed for number in numbers] or [1.0], dtype=np.float64)
        index = np.where(self.message >= 0, first[self.row] + self.message, 0)
        return np.where(self.message >= 0, flat[index], 1.0)

    def matching(self, pattern: re.Pattern[str] | Pattern) -> NDArray[np.bool_]:
        """Return (N,) True for the tokens that overlap a match of `pattern` in the text of their row.

        An expression that is an option of the recipe comes as a `Pattern`, which is sure to end. Raises DataError when
        it takes too long.
        """
        import numpy as np

        found = np.zeros(len(self.ids), dtype=bool)
        bounds = np.searchsorted(self.row, np.arange(len(self.texts) + 1))
        for text, low, high in zip(self.texts, bounds[:-1], bounds[1:], strict=True):
            for match in pattern.finditer(text):
                # Any overlap counts: a match within a token is the token.
                found[low:high] |= (self.start[low:high] < match.end()) & (self.end[low:high] > match.start())
        return found

    @staticmethod
    def role_code(name: str) -> int:
        """Return the code of a role's name. Raises ValueError for a name that `ROLE_CODES` lacks."""
        return ROLE_CODES.index(name)

    @staticmethod
    def part_code(name: str) -> int:
        """Return the code of a part's name. Raises ValueError for a name that `PARTS` lacks."""
        return PARTS.index(name)


@dataclass(frozen=True, slots=True)
class LossSums:
    """What the loss is made of, over S sources, the roles in `ROLE_CODES` and the parts in `PARTS`.

    In training the loss of a step is ``sum(w * nll) / sum(w)`` over its tokens, and what is logged is the mean over the
    steps since the last log. So here each step is divided by its own ``sum(w)``, and the steps are averaged:
    ``loss.sum()`` is the logged loss, to rounding, and ``weight.sum()`` is 1. An evaluation counts as one step.
    """

    loss: NDArray[np.float64]
    """(S, R, P) sums of w * nll of the tokens of each source, role and part."""
    weight: NDArray[np.float64]
    """(S, R, P) sums of w: the share of the loss's weight."""
    sources: tuple[str, ...]
    """Short names of the sources, no two alike."""
    tagged: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """Tag, as ``tags`` of a source names it -> its value -> sum of w * nll, and of w."""

    def by(self, what: str) -> dict[str, tuple[float, float]]:
        """Return name -> (mean loss, share of the weight) of all that has any weight.

        `what` is ``source``, ``role``, ``part`` or a tag. Raises ValueError for a tag that no row has.
        """
        if what in self.tagged:
            return {name: (loss / weight, weight) for name, (loss, weight) in self.tagged[what].items() if weight > 0}
        axis = ("source", "role", "part").index(what)
        names = (self.sources, ROLE_CODES, PARTS)[axis]
        others = tuple({0, 1, 2} - {axis})
        loss, weight = self.loss.sum(others).tolist(), self.weight.sum(others).tolist()
        return {name: (a / b, b) for name, a, b in zip(names, loss, weight, strict=True) if b > 0}


@dataclass(frozen=True, slots=True)
class LongRow:
    """A row that is too long."""

    conversation: Conversation
    message_tokens: Sequence[int]
    """How many tokens each message takes, its header and its stop included."""
    length: int
    """How many tokens the row has, those of no message included."""
    limit: int
    """How many it may have."""
