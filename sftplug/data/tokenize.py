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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sftplug.conversation import Conversation
from sftplug.data.engine import Encoded, Encoders, EngineName, IntArray, TokenizersEngine, together
from sftplug.data.render import Rendered
from sftplug.errors import ModelError
from sftplug.tokens import PARTS, ROLE_CODES, TokenBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CODES = {role: code for code, role in enumerate(ROLE_CODES)}


@dataclass(frozen=True)
class Encoder:
    """A tokenizer's engines, and what it takes for control tokens."""

    engines: Encoders
    control: re.Pattern[str] | None
    """Matches the text of a control token; None for a tokenizer that has none."""
    control_ids: NDArray[np.bool_]
    """(V,) whether an id is that of a control token."""
    escape: bool
    """Whether what looks like a control token in a message is mere text."""

    @cached_property
    def literal(self) -> TokenizersEngine:
        """The same tokenizer, to which control tokens are text like any other."""
        backend = self.engines.slow.backend
        literal = type(backend).from_str(backend.to_str())
        literal.encode_special_tokens = True
        return TokenizersEngine(literal)

    def puts_space_before_pieces(self) -> bool:
        """Whether a piece of text on its own gets a space that it does not have within the whole."""
        first = self.engines.slow.backend.encode("a", add_special_tokens=False).tokens[:1]
        return bool(first) and first[0].startswith(("▁", "Ġ"))

    def encode_pieces(self, text: str, edges: Sequence[int], marks: Sequence[tuple[int, int]]) -> Encoded:
        """Tokenize `text` cut at `edges`, as inference tokenizes the prompt alone, and at `marks`, which are text."""
        literal = {start for start, _ in marks}
        cuts = sorted({0, len(text), *edges, *(edge for mark in marks for edge in mark)})
        pieces = []
        for start, end in itertools.pairwise(cuts):
            engine = self.literal if start in literal else self.engines.slow
            piece = engine.with_offsets([text[start:end]])
            pieces.append(piece._replace(start=piece.start + np.int32(start), end=piece.end + np.int32(start)))
        whole = together(pieces)
        return whole._replace(counts=whole.counts.sum(keepdims=True))


def encoder(
    tokenizer: PreTrainedTokenizerBase,
    *,
    escape: bool = False,
    engine: EngineName = "auto",
    proofs: Path | None = None,
) -> Encoder:
    """Return the engines of `tokenizer`; `escape` makes text in messages that looks like a control token mere text.

    `proofs` is a folder that remembers for which vocabularies the engines agree.

    Raises ModelError for a tokenizer without a fast backend, which does not know what a token covers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        name = type(tokenizer).__name__
        raise ModelError(f"the tokenizer ({name}) has no fast backend: it cannot say which characters a token covers")
    backend.no_padding()
    backend.no_truncation()
    special = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    texts = sorted(special.values(), key=len, reverse=True)
    control = re.compile("|".join(map(re.escape, texts))) if texts else None
    ids = np.zeros(max([len(tokenizer), *special]) + 1, dtype=bool)
    ids[list(special)] = True
    return Encoder(Encoders(TokenizersEngine(backend), engine, proofs), control, ids, escape)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A batch of tokens, and what had to be tokenized apart."""

    tokens: TokenBatch
    apart: tuple[int, ...]
    """Indices of the rows with a token that straddled the edge of a span."""
    look_alikes: Mapping[int, str]
    """Index of a row -> the first text in a message that is that of a control token."""
    stuck: frozenset[int]
    """Those of them in which it should be mere text, and the tokenizer cannot do that."""


def tokenize(
    conversations: Sequence[Conversation],
    rendered: Sequence[Rendered],
    encode: Encoder,
    encoded: Encoded | None = None,
) -> Tokenized:
    """Tokenize a batch of rows. `conversations` and `rendered` run side by side.

    `encoded` are the tokens of the rendered texts, if they are known already.

    Raises ModelError when a straddling token cannot be split because the tokenizer does not tokenize pieces as it
    does the whole (a prefix space before each piece).
    """
    batch = _Batch.of(rendered)
    placed = batch.place(encode.engines.encode(batch.texts) if encoded is None else encoded)
    found = _look_alikes_in(batch, placed, encode)
    escaped = found if encode.escape else {}
    placed = batch.replace(
        placed, {index: encode.encode_pieces(batch.texts[index], [], marks) for index, marks in escaped.items()}
    )
    stuck = _stuck(batch, placed, encode) & escaped.keys() if escaped else frozenset()
    apart = _straddled(batch, placed)
    if apart:
        _refuse_prefix_space(encode)
    edges = {index: sorted(_edges(rendered[index])) for index in apart}
    placed = batch.replace(
        placed,
        {index: encode.encode_pieces(batch.texts[index], edges[index], escaped.get(index, [])) for index in apart},
    )
    first = {index: rendered[index].text[slice(*marks[0])] for index, marks in found.items() if marks}
    return Tokenized(_tokens(conversations, batch, placed), apart, first, stuck)


class _Placed(NamedTuple):
    """Tokens, and where in the whole batch each of them stands."""

    tokens: Encoded
    start: NDArray[np.int64]
    end: NDArray[np.int64]


class _Batch(NamedTuple):
    """Rows laid end to end: one running character offset over all of them lets one search serve the whole batch."""

    rendered: Sequence[Rendered]
    texts: Sequence[str]
    base: NDArray[np.int64]
    """(R,) where each row's text begins."""
    runs: NDArray[np.int64]
    """Where each run of each row begins."""
    spans: NDArray[np.int64]
    """(S, 3) start, end and message of every trained span."""

    @classmethod
    def of(cls, rendered: Sequence[Rendered]) -> _Batch:
        texts = [row.text for row in rendered]
        base = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
        sizes = [len(row.runs.starts) for row in rendered]
        runs = np.concatenate([row.runs.starts for row in rendered] or [base]) + np.repeat(base, sizes)
        listed = [
            (span.start + offset, span.end + offset, span.message)
            for row, offset in zip(rendered, base.tolist(), strict=True)
            for span in row.spans
        ]
        spans = np.array(listed, dtype=np.int64).reshape(-1, 3)
        return cls(rendered, texts, base, runs, spans[np.argsort(spans[:, 0], kind="stable")])

    def joined(self, name: str) -> NDArray[Any]:
        """Return what the runs of all rows say of `name`."""
        return np.concatenate([getattr(row.runs, name) for row in self.rendered])

    def run_of(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return in which run each position lies."""
        return _stretch_of(self.runs, position)

    def row_of(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return in which row each position lies."""
        return np.searchsorted(self.base, position, side="right") - 1

    def place(self, encoded: Encoded) -> _Placed:
        """Return the tokens with where each of them starts and ends in the whole batch."""
        shift = np.repeat(self.base, encoded.counts)
        return _Placed(encoded, encoded.start + shift, encoded.end + shift)

    def replace(self, placed: _Placed, rows: Mapping[int, Encoded]) -> _Placed:
        """Return the tokens with those of some rows replaced."""
        return self.place(placed.tokens.with_rows(rows)) if rows else placed


def _look_alikes_in(batch: _Batch, placed: _Placed, encode: Encoder) -> dict[int, list[tuple[int, int]]]:
    """Return row -> (start, end) of every control token's text in it that a message wrote, not the template."""
    if encode.control is None:
        return {}
    rows = np.unique(batch.row_of(_controls_written(batch, placed, encode))).tolist()
    return {row: look_alikes(batch.rendered[row], encode.control) for row in rows}


def _controls_written(batch: _Batch, placed: _Placed, encode: Encoder) -> NDArray[np.int64]:
    """Return where control tokens stand in text that a message wrote."""
    at = placed.start[encode.control_ids[placed.tokens.ids]]
    return at[batch.joined("own")[batch.run_of(at)]] if len(at) else at


def look_alikes(row: Rendered, control: re.Pattern[str]) -> list[tuple[int, int]]:
    """Return (start, end) of every match of `control` in text that a message wrote."""
    found = []
    for match in control.finditer(row.text):
        run = int(np.searchsorted(row.runs.starts, match.start(), side="right")) - 1
        if row.runs.own[run]:
            found.append(match.span())
    return found


def _stuck(batch: _Batch, placed: _Placed, encode: Encoder) -> frozenset[int]:
    """Return the rows in which text that was to be escaped is a control token still, or has got a space."""
    if encode.puts_space_before_pieces():
        return frozenset(range(len(batch.texts)))
    return frozenset(batch.row_of(_controls_written(batch, placed, encode)).tolist())


def _straddled(batch: _Batch, placed: _Placed) -> tuple[int, ...]:
    """Return the rows in which the edge of a trained span lies inside a token."""
    _, start, end = placed
    edges = np.unique(batch.spans[:, :2])
    before = np.searchsorted(start, edges, side="left") - 1
    inside = (before >= 0) & (end[np.maximum(before, 0)] > edges) if len(start) else edges < 0
    return tuple(np.unique(batch.row_of(edges[inside])).tolist())


def _edges(row: Rendered) -> set[int]:
    return {edge for span in row.spans for edge in (span.start, span.end)}


def _refuse_prefix_space(encode: Encoder) -> None:
    if encode.puts_space_before_pieces():
        raise ModelError(
            "a token straddles the edge of a trained span, and this tokenizer puts a space before every piece of "
            "text, so the two sides cannot be tokenized apart. Change the template so that the assistant's header "
            "ends in a special token or a line break."
        )


def _tokens(conversations: Sequence[Conversation], batch: _Batch, placed: _Placed) -> TokenBatch:
    encoded, start, end = placed
    row = np.repeat(np.arange(len(encoded.counts), dtype=np.int32), encoded.counts)
    run, run_message = batch.run_of(start), batch.joined("message")
    roles = _Roles.of(conversations)
    # There are few runs, and many tokens: what holds of a run is found once and handed out.
    message, part = run_message[run], batch.joined("part")[run]
    role = roles.at(batch.row_of(batch.runs), run_message)[run]
    span = _span_of(batch.spans, start, end)
    # A stop that the next message prints is a token of the turn that it ends.
    borrowed = np.flatnonzero((span >= 0) & (span != message))
    message[borrowed] = span[borrowed]
    part[borrowed] = PARTS.index("end_of_turn")
    role[borrowed] = roles.at(row[borrowed], span[borrowed])
    return TokenBatch(
        ids=encoded.ids,
        row=row,
        message=message,
        role=role,
        part=part,
        item=batch.joined("item")[run],
        trainable=span >= 0,
        start=encoded.start,
        end=encoded.end,
        texts=batch.texts,
        conversations=conversations,
    )


class _Roles(NamedTuple):
    """The roles of all messages of a batch, one after another."""

    codes: NDArray[np.int8]
    """The last one is that of no message."""
    first: NDArray[np.int64]
    """(R,) where those of each row begin."""

    @classmethod
    def of(cls, conversations: Sequence[Conversation]) -> _Roles:
        codes = [_CODES[message.role] for conversation in conversations for message in conversation.messages]
        first = np.cumsum([0, *(len(conversation.messages) for conversation in conversations)])[:-1]
        return cls(np.array([*codes, 0], dtype=np.int8), first)

    def at(self, row: NDArray[np.int64] | IntArray, message: IntArray) -> NDArray[np.int8]:
        """Return the role of each `message`, counted within its `row`; that of none where it is -1."""
        return self.codes[np.where(message >= 0, self.first[row] + message, len(self.codes) - 1)]


def _span_of(spans: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> IntArray:
    """Return the message in whose trained span each token lies; -1 for tokens in none."""
    if not len(spans):
        return np.full(len(start), -1, dtype=np.int32)
    opens, closes, message = spans.T
    if not (_ascends(start) and _ascends(end)):
        index = _stretch_of(opens, start)
        within = (index >= 0) & (start < closes[index]) & (end <= closes[index])
        return np.where(within, message[index], -1).astype(np.int32)
    # The tokens of a span are those from the first that starts in it to the last that ends in it.
    first = np.searchsorted(start, opens, side="left")
    last = np.minimum(np.searchsorted(end, closes, side="right"), np.searchsorted(start, closes, side="left"))
    last = np.maximum(last, first)
    edges = np.stack([first, last], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [len(start)]]))
    between = np.full((len(spans) + 1, 2), -1, dtype=np.int32)
    between[:-1, 1] = message
    return np.repeat(between.ravel()[:-1], counts)


def _ascends(position: NDArray[np.int64]) -> bool:
    return not (position[1:] < position[:-1]).any()


def _stretch_of(starts: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return in which stretch each position lies; -1 for those before the first of the `starts`, which ascend."""
    if not _ascends(position):
        return np.searchsorted(starts, position, side="right") - 1
    # Positions ascend, as those of tokens do: to look up the few starts is quicker than the many positions.
    first = np.searchsorted(position, starts, side="left")
    counts = np.diff(np.concatenate([[0], first, [len(position)]]))
    return np.repeat(np.arange(-1, len(starts)), counts)
