"""Rows that come as tokens: their ids go to the trainer as they are, and they say themselves which are trained.

Nobody knows who wrote such a token, or what part of a turn it is. What asks for that is refused; what the ids spell is
looked up for those who want to see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sftplug.data.convert import Example
from sftplug.data.engine import EncodedTexts
from sftplug.data.render import Finding, Rendered, Runs
from sftplug.errors import DataError, RowError
from sftplug.plugin.calls import reads_turns, trains
from sftplug.plugin.components import Masking
from sftplug.types.conversation import RowTokens
from sftplug.types.ledger import Account
from sftplug.types.tokens import PARTS, TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN_TOKENS = "tokens of its own"
_GIVEN = "its tokens are given by the row, with what is trained of them: sftplug vouches for neither"
_CUT = "\N{REPLACEMENT CHARACTER}"
"""What some bytes of a character are decoded as."""


@dataclass(slots=True)
class TokenRows:
    """Lets rows of tokens through that the masking does not contradict."""

    source: str
    maskings: Sequence[Sequence[Masking]]
    controls: str
    """The recipe's `data.special_tokens_in_content`."""
    _asked: bool = False

    def rest(self, examples: Iterable[Example], account: Account) -> Iterator[Example]:
        """Yield the rows that may go on; tell `account` of the others.

        Raises DataError for a masking strategy, and another option, that ask what nobody knows of a token.
        """
        beyond = sorted(set().union(*(trains(part) for union in self.maskings for part in union)))
        for example in examples:
            given = example.conversation.tokens
            if given is not None:
                self._refuse_strategies()
                if contradiction := _contradiction(given, beyond):
                    account.drop("bad", example.origin, contradiction)
                    continue
            yield example

    def _refuse_strategies(self) -> None:
        if self._asked:
            return
        self._asked = True
        if self.controls in ("escape", "error"):
            raise DataError(
                f"{self.source}: `data.special_tokens_in_content: {self.controls}` is for control tokens that somebody "
                "typed, and these rows are tokens, in which those control that are there. Leave it out."
            )
        for union in self.maskings:
            for part in union:
                if reads_turns(part):
                    raise DataError(
                        f"{self.source}: the masking strategy '{part.type}' asks who wrote a token, or what part of a "
                        "turn it is, and these rows are tokens, which do not say it. `masking: assistant` trains what "
                        "the rows say; or name the rows that the tokens were made of."
                    )


def _contradiction(given: RowTokens, beyond: Sequence[str]) -> str:
    """Return why the masking, which trains the roles `beyond` that of the assistant, does not go with a row."""
    if given.trained is None and "document" not in beyond:
        return (
            "the row is tokens, and does not say which of them are trained, by labels or a mask. `masking: all` trains "
            "every one"
        )
    if given.trained is not None and beyond and not all(given.trained):
        return (
            "the row says which of its tokens are trained, and the masking trains others too. `masking: assistant` "
            "trains those that the row says"
        )
    return ""


@dataclass
class TokenTexts:
    """What the ids of a tokenizer spell."""

    tokenizer: PreTrainedTokenizerBase
    _pieces: dict[int, str] = field(default_factory=dict)

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        """(V,) which ids there are, up to the largest."""
        ids = np.array([*self.tokenizer.get_vocab().values()], dtype=np.int64)
        known = np.zeros(int(ids.max(initial=-1)) + 1, dtype=bool)
        known[ids] = True
        return known

    def rendered(self, given: RowTokens) -> Rendered:
        """Return the text that tokens spell. Raises RowError for an id that the tokenizer does not have."""
        self._refuse_unknown(given.ids)
        runs = Runs(
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            np.full(1, PARTS.index("content"), np.int8),
            np.ones(1, bool),
            np.full(1, -1, np.int16),
            np.zeros(1, bool),  # what controls in them is to control
        )
        return Rendered("".join(self._spelled(given.ids)), runs, (), (Finding(OWN_TOKENS, "policy", None, _GIVEN),))

    def encoded(self, given: RowTokens) -> EncodedTexts:
        """Return the tokens, and the characters that each spells; those that spell one together all cover it."""
        sizes = np.fromiter(map(len, self._spelled(given.ids)), np.int32, len(given.ids))
        end = np.cumsum(sizes, dtype=np.int32)
        start = end - sizes
        # What goes on with a character stands where that begins.
        inner = np.array([_CUT in self._piece(token) for token in given.ids], dtype=bool) & (sizes == 0)
        first = np.maximum.accumulate(np.where(inner, 0, np.arange(len(sizes))))
        return EncodedTexts(np.array(given.ids, np.int32), np.array([len(sizes)]), start[first], end)

    def last_trained(self, given: RowTokens) -> str | None:
        """Return the text of the last token that a row trains; None where it trains none, or does not say."""
        trained = np.flatnonzero(given.trained or ())
        return self._decoded([given.ids[trained[-1]]]) if len(trained) else None

    def _refuse_unknown(self, ids: Sequence[int]) -> None:
        flat = np.array(ids, dtype=np.int64)
        known = (flat >= 0) & (flat < len(self._known))
        known[known] = self._known[flat[known]]
        if len(wrong := np.flatnonzero(~known)):
            raise RowError(
                "tokens",
                f"token {wrong[0]} has the id {ids[wrong[0]]}, which the tokenizer of this model does not have: its "
                f"ids end at {len(self._known) - 1}. Another tokenizer made the row: name the model that it is of, or "
                "the rows that it was made of",
            )

    def _spelled(self, ids: Sequence[int]) -> Iterator[str]:
        """Yield the text of each token; of several that spell a character together, the first one has it."""
        held: list[int] = []
        for token in ids:
            if _CUT not in self._piece(token):
                yield from self._together(held)
                yield self._piece(token)
                held = []
                continue
            held.append(token)
            # "é" may be two tokens, a byte each: the first alone is decoded as U+FFFD.
            if not self._decoded(held).endswith(_CUT):
                yield from self._together(held)
                held = []
        yield from self._together(held)

    def _together(self, tokens: Sequence[int]) -> Iterator[str]:
        yield from [self._decoded(tokens), *[""] * (len(tokens) - 1)] if tokens else ()

    def _decoded(self, tokens: Sequence[int]) -> str:
        # Of the backend itself: transformers' own `decode` may clean up white space.
        return str(self.tokenizer.backend_tokenizer.decode(list(tokens), skip_special_tokens=False))

    def _piece(self, token: int) -> str:
        """Return what a token spells behind another: at its beginning a text may lose a space."""
        if token not in self._pieces:
            once, twice = self._decoded([token]), self._decoded([token, token])
            self._pieces[token] = twice.removeprefix(once) if len(twice) > len(once) else once
        return self._pieces[token]


def with_row_tokens(tokens: TokenBatch) -> TokenBatch:
    """Return a batch in which the tokens of rows are trainable that say so themselves."""
    given = {row: said.tokens for row, said in enumerate(tokens.conversations) if said.tokens is not None}
    if not given:
        return tokens
    trainable, bounds = tokens.trainable.copy(), np.searchsorted(tokens.row, np.arange(len(tokens.texts) + 1))
    for row, said in given.items():
        trainable[bounds[row] : bounds[row + 1]] = False if said.trained is None else said.trained
    return replace(tokens, trainable=trainable)
