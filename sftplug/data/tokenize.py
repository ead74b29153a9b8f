"""Rendered text with provenance -> tokens with provenance, in flat arrays.

A token belongs to whoever wrote its first character. It is trainable iff it lies within a trained span. Where a token
straddles the edge of a span, training would see other ids than inference, which tokenizes the prompt alone; so both
sides are tokenized apart there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sftplug.conversation import Conversation
from sftplug.data.render import Rendered
from sftplug.errors import ModelError
from sftplug.tokens import PARTS, ROLE_CODES, TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IntArray = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of one text: ids and the characters that each covers. Three arrays of equal length."""

    ids: IntArray
    start: IntArray
    end: IntArray


Encode = Callable[[Sequence[str]], list[Encoded]]


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """Return a function from texts to `Encoded`, without adding special tokens: the template has them in its text.

    Raises ModelError for a tokenizer without a fast backend, which does not know what a token covers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        name = type(tokenizer).__name__
        raise ModelError(f"the tokenizer ({name}) has no fast backend: it cannot say which characters a token covers")
    backend.no_padding()
    backend.no_truncation()

    def encode(texts: Sequence[str]) -> list[Encoded]:
        return [_encoded(item) for item in backend.encode_batch(list(texts), add_special_tokens=False)]

    return encode


def _encoded(item: Any) -> Encoded:
    offsets = np.array(item.offsets, dtype=np.int32).reshape(-1, 2)
    ends = offsets[:, 1]
    # Some tokenizers trim a leading space from a token's offsets; the token covers it all the same.
    # Some tokenizers trim a leading space from a token's offsets; the token covers it all the same.
    covered = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
    starts = np.minimum(offsets[:, 0], covered).astype(np.int32)
    return Encoded(np.array(item.ids, dtype=np.int32), starts, ends)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A batch of tokens, and the rows whose span edges had to be tokenized apart."""

    tokens: TokenBatch
    apart: tuple[int, ...]
    """Indices of the rows with a token that straddled the edge of a span."""


def tokenize(conversations: Sequence[Conversation], rendered: Sequence[Rendered], encode: Encode) -> Tokenized:
    """Tokenize a batch of rows. `conversations` and `rendered` run side by side.

    Raises ModelError when a straddling token cannot be split because the tokenizer does not tokenize pieces as it
    does the whole (a prefix space before each piece).
    """
    encoded = encode([row.text for row in rendered])
    apart = tuple(index for index, row in enumerate(rendered) if straddling(encoded[index], row))
    for index in apart:
        encoded[index] = _encode_apart(rendered[index], encode)
    return Tokenized(_batch(conversations, rendered, encoded), apart)


def straddling(encoded: Encoded, row: Rendered) -> list[int]:
    """Return the edges of trained spans (character offsets) that lie inside a token."""
    edges = np.array(sorted(_edges(row)), dtype=np.int32)
    before = np.searchsorted(encoded.start, edges, side="left") - 1
    inside = (before >= 0) & (encoded.end[np.maximum(before, 0)] > edges) if len(encoded.ids) else edges < 0
    return [int(edge) for edge in edges[inside]]


def _edges(row: Rendered) -> set[int]:
    return {edge for span in row.spans for edge in (span.start, span.end)}


def _encode_apart(row: Rendered, encode: Encode) -> Encoded:
    """Tokenize the text cut at every edge of a span, as inference tokenizes the prompt alone."""
    cuts = sorted({0, len(row.text), *_edges(row)})
    pieces = encode([row.text[start:end] for start, end in itertools.pairwise(cuts)])
    _refuse_prefix_space(encode)
    return Encoded(
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate([piece.start + cut for piece, cut in zip(pieces, cuts, strict=False)]).astype(np.int32),
        np.concatenate([piece.end + cut for piece, cut in zip(pieces, cuts, strict=False)]).astype(np.int32),
    )


def _refuse_prefix_space(encode: Encode) -> None:
    bare, spaced = encode(["a", " a"])
    if np.array_equal(bare.ids, spaced.ids):
        raise ModelError(
            "a token straddles the edge of a trained span, and this tokenizer puts a space before every piece of "
            "text, so the two sides cannot be tokenized apart. Change the template so that the assistant's header "
            "ends in a special token or a line break."
        )


def _batch(conversations: Sequence[Conversation], rendered: Sequence[Rendered], encoded: list[Encoded]) -> TokenBatch:
    counts = [len(item.ids) for item in encoded]
    row = np.repeat(np.arange(len(encoded), dtype=np.int32), counts)
    start = np.concatenate([item.start for item in encoded]) if encoded else np.zeros(0, np.int32)
    end = np.concatenate([item.end for item in encoded]) if encoded else np.zeros(0, np.int32)
    # One running character offset over the whole batch lets one search serve all rows.
    base = np.cumsum([0, *(len(item.text) + 1 for item in rendered)])[:-1]
    message, part = _written_by(rendered, base, start + base[row])
    span = _span_of(rendered, base, start + base[row], end + base[row])
    # A stop that the next message prints is a token of the turn that it ends.
    borrowed = (span >= 0) & (span != message)
    message, part = np.where(borrowed, span, message), np.where(borrowed, np.int8(PARTS.index("end_of_turn")), part)
    return TokenBatch(
        ids=np.concatenate([item.ids for item in encoded]) if encoded else np.zeros(0, np.int32),
        row=row,
        message=message,
        role=_roles(conversations, row, message),
        part=part,
        trainable=span >= 0,
        start=start,
        end=end,
        texts=[item.text for item in rendered],
        conversations=conversations,
    )


def _written_by(rendered: Sequence[Rendered], base: IntArray, start: IntArray) -> tuple[IntArray, NDArray[np.int8]]:
    """Return the message and the part of the run in which each token starts."""
    runs = np.concatenate([item.starts + offset for item, offset in zip(rendered, base, strict=True)])
    index = np.searchsorted(runs, start, side="right") - 1
    message = np.concatenate([item.message for item in rendered]).astype(np.int32)
    part = np.concatenate([item.part for item in rendered]).astype(np.int8)
    return message[index], part[index]


def _roles(conversations: Sequence[Conversation], row: IntArray, message: IntArray) -> NDArray[np.int8]:
    codes = [[ROLE_CODES.index(m.role) for m in conversation.messages] for conversation in conversations]
    first = np.cumsum([0, *(len(roles) for roles in codes)])[:-1]
    flat = np.array([code for roles in codes for code in roles] or [0], dtype=np.int8)
    return np.where(message >= 0, flat[np.where(message >= 0, first[row] + message, 0)], 0).astype(np.int8)


def _span_of(rendered: Sequence[Rendered], base: IntArray, start: IntArray, end: IntArray) -> IntArray:
    """Return the message in whose trained span each token lies; -1 for tokens in none."""
    spans = [
        (span.start + offset, span.end + offset, span.message)
        for item, offset in zip(rendered, base, strict=True)
        for span in sorted(item.spans, key=lambda span: span.start)
    ]
    if not spans:
        return np.full(len(start), -1, dtype=np.int32)
    opens, closes, message = np.array(spans, dtype=np.int64).T
    index = np.searchsorted(opens, start, side="right") - 1
    within = (index >= 0) & (start < closes[index]) & (end <= closes[index])
    return np.where(within, message[index], -1).astype(np.int32)
