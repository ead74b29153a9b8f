"""Rendered text with provenance -> tokens with provenance, in flat arrays.

A token belongs to whoever wrote its first character. It is trainable iff it lies within a trained span. Where a token
straddles the edge of a span, training would see other ids than inference, which tokenizes the prompt alone; so both
sides are tokenized apart there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer's engine, and what it takes for control tokens."""

    engine: Any
    literal: Any
    """The same engine, to which control tokens are text like any other."""
    control: re.Pattern[str] | None
    """Matches the text of a control token; None to let text in messages control."""

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenize without adding special tokens: the template has them in its text."""
        return [_encoded(item) for item in self.engine.encode_batch(list(texts), add_special_tokens=False)]

    def encode_literal(self, text: str) -> Encoded:
        """Tokenize a text in which nothing is a control token."""
        return _encoded(self.literal.encode(text, add_special_tokens=False))


def encoder(tokenizer: PreTrainedTokenizerBase, *, escape: bool = False) -> Encoder:
    """Return the engine of `tokenizer`; `escape` makes text in messages that looks like a control token mere text.

    Raises ModelError for a tokenizer without a fast backend, which does not know what a token covers.
    """
    engine = getattr(tokenizer, "backend_tokenizer", None)
    if engine is None:
        name = type(tokenizer).__name__
        raise ModelError(f"the tokenizer ({name}) has no fast backend: it cannot say which characters a token covers")
    engine.no_padding()
    engine.no_truncation()
    literal = type(engine).from_str(engine.to_str())
    literal.encode_special_tokens = True
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    control = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True)))) if special else None
    return Encoder(engine, literal, control if escape else None)


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
    """A batch of tokens, and what had to be tokenized apart."""

    tokens: TokenBatch
    apart: tuple[int, ...]
    """Indices of the rows with a token that straddled the edge of a span."""
    escaped: Mapping[int, str]
    """Index of a row -> the first text in a message that looks like a control token and was tokenized as text."""


def tokenize(conversations: Sequence[Conversation], rendered: Sequence[Rendered], encode: Encoder) -> Tokenized:
    """Tokenize a batch of rows. `conversations` and `rendered` run side by side.

    Raises ModelError when a straddling token cannot be split because the tokenizer does not tokenize pieces as it
    does the whole (a prefix space before each piece).
    """
    encoded = encode.encode([row.text for row in rendered])
    escaped = {index: marks for index, row in enumerate(rendered) if (marks := look_alikes(row, encode.control))}
    for index, marks in escaped.items():
        encoded[index] = _encode_pieces(rendered[index], [], marks, encode)
    apart = tuple(index for index, row in enumerate(rendered) if straddling(encoded[index], row))
    for index in apart:
        _refuse_prefix_space(encode)
        edges = sorted(_edges(rendered[index]))
        encoded[index] = _encode_pieces(rendered[index], edges, escaped.get(index, []), encode)
    first = {index: rendered[index].text[slice(*marks[0])] for index, marks in escaped.items()}
    return Tokenized(_batch(conversations, rendered, encoded), apart, first)


def look_alikes(row: Rendered, control: re.Pattern[str] | None) -> list[tuple[int, int]]:
    """Return (start, end) of every control token's text that a message wrote, not the template."""
    found = []
    for match in control.finditer(row.text) if control is not None else ():
        run = int(np.searchsorted(row.runs.starts, match.start(), side="right")) - 1
        if row.runs.own[run]:
            found.append(match.span())
    return found


def straddling(encoded: Encoded, row: Rendered) -> list[int]:
    """Return the edges of trained spans (character offsets) that lie inside a token."""
    edges = np.array(sorted(_edges(row)), dtype=np.int32)
    before = np.searchsorted(encoded.start, edges, side="left") - 1
    inside = (before >= 0) & (encoded.end[np.maximum(before, 0)] > edges) if len(encoded.ids) else edges < 0
    return [int(edge) for edge in edges[inside]]


def _edges(row: Rendered) -> set[int]:
    return {edge for span in row.spans for edge in (span.start, span.end)}


def _encode_pieces(row: Rendered, edges: Sequence[int], marks: Sequence[tuple[int, int]], encode: Encoder) -> Encoded:
    """Tokenize the text cut at `edges`, as inference tokenizes the prompt alone, and at `marks`, which are text."""
    literal = {start for start, _ in marks}
    cuts = sorted({0, len(row.text), *edges, *(edge for mark in marks for edge in mark)})
    bounds = list(itertools.pairwise(cuts))
    plain = iter(encode.encode([row.text[start:end] for start, end in bounds if start not in literal]))
    pieces = [encode.encode_literal(row.text[start:end]) if start in literal else next(plain) for start, end in bounds]
    return Encoded(
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate([piece.start + cut for piece, (cut, _) in zip(pieces, bounds, strict=True)]).astype(np.int32),
        np.concatenate([piece.end + cut for piece, (cut, _) in zip(pieces, bounds, strict=True)]).astype(np.int32),
    )


def _refuse_prefix_space(encode: Encoder) -> None:
    bare, spaced = encode.encode(["a", " a"])
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
    runs = np.concatenate([item.runs.starts + offset for item, offset in zip(rendered, base, strict=True)])
    index = np.searchsorted(runs, start, side="right") - 1
    message = np.concatenate([item.runs.message for item in rendered]).astype(np.int32)
    part = np.concatenate([item.runs.part for item in rendered]).astype(np.int8)
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
