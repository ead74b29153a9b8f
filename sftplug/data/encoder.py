"""A tokenizer as rows are tokenized with it: whole texts fast, and texts cut where control tokens must be mere text."""

from __future__ import annotations

import itertools
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sftplug.data.control_tokens import Controls, controls_of
from sftplug.data.engine import EncodedTexts, Encoders, EngineName, TokenizersEngine, together
from sftplug.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.types.conversation import Conversation


@dataclass(frozen=True)
class Encoder:
    """A tokenizer's engines, and what it takes for control tokens."""

    engines: Encoders
    controls: Controls
    escape: bool
    """Whether what looks like a control token in a conversation is mere text."""
    escape_plain: bool = True
    """Whether it is in plain text too, where `escape` says so."""

    def escapes(self, conversation: Conversation) -> bool:
        """Whether what looks like a control token in a row is mere text there."""
        return self.escape and (self.escape_plain or not conversation.plain)

    @cached_property
    def literal(self) -> TokenizersEngine:
        """The same tokenizer, to which control tokens are text like any other."""
        backend = self.engines.slow.backend
        state = json.loads(backend.to_str())
        for token in state["added_tokens"]:
            # `encode_special_tokens` has an effect on special tokens only: so every control token is made special
            # first.
            token["special"] |= bool(self.controls.ids[token["id"]])
        literal = type(backend).from_str(json.dumps(state))
        literal.encode_special_tokens = True
        return TokenizersEngine(literal)

    def puts_space_before_pieces(self) -> bool:
        """Whether a piece of text on its own gets a space that it does not have within the whole."""
        first = self.engines.slow.backend.encode("a", add_special_tokens=False).tokens[:1]
        return bool(first) and first[0].startswith(("▁", "Ġ"))

    def encode_pieces(self, text: str, edges: Iterable[int], marks: Sequence[tuple[int, int]]) -> EncodedTexts:
        """Tokenize `text` cut at `edges`, as inference tokenizes the prompt alone, and at `marks`, which are text."""
        marks = sorted(marks)
        starts = [start for start, _ in marks]
        cuts = sorted({0, len(text), *edges, *(edge for mark in marks for edge in mark)})
        pieces = []
        for start, end in itertools.pairwise(cuts):
            mark = bisect_right(starts, start) - 1
            as_text = mark >= 0 and start < marks[mark][1]
            piece = self._as_text(text[start:end]) if as_text else self.engines.slow.with_offsets([text[start:end]])
            pieces.append(_moved(piece, start))
        return _joined(pieces)

    def _as_text(self, text: str) -> EncodedTexts:
        """Tokenize what must not be a control token; where its letters are one all the same, the first is cut off."""
        whole = self.literal.with_offsets([text])
        # "[INST]" may be a token of the ordinary vocabulary, which no flag makes text of; "[" and "INST]" are text.
        if len(text) == 1 or not self.controls.ids[whole.ids].any():
            return whole
        first, rest = (self.literal.with_offsets([part]) for part in (text[:1], text[1:]))
        return _joined([first, _moved(rest, 1)])


def _moved(piece: EncodedTexts, by: int) -> EncodedTexts:
    return piece._replace(start=piece.start + np.int32(by), end=piece.end + np.int32(by))


def _joined(pieces: Sequence[EncodedTexts]) -> EncodedTexts:
    """Return the tokens of the pieces of one text."""
    whole = together(pieces)
    return whole._replace(counts=whole.counts.sum(keepdims=True))


def encoder(
    tokenizer: PreTrainedTokenizerBase,
    controls: Controls | None = None,
    *,
    escape: bool = False,
    engine: EngineName = "auto",
    proofs: Path | None = None,
) -> Encoder:
    """Return the engines of `tokenizer`; `escape` makes text in a row that looks like a control token mere text.

    `controls` are its control tokens, if they are known already. `proofs` is a folder that remembers for which
    vocabularies the engines agree.

    Raises ModelError for a tokenizer without a fast backend, which does not know what a token covers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        name = type(tokenizer).__name__
        raise ModelError(f"the tokenizer ({name}) has no fast backend: it cannot say which characters a token covers")
    # A tokenizer may have been saved with both, and would fill up or cut the rows of each batch.
    backend.no_padding()
    backend.no_truncation()
    controls = controls_of(tokenizer) if controls is None else controls
    return Encoder(Encoders(TokenizersEngine(backend), engine, proofs), controls, escape)
