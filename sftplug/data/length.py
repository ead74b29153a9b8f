"""Rows that fit: what is too long meets the recipe's length policy; the ledger is told what became of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sftplug.data.convert import Example
from sftplug.data.rendering import ConversationRenderer, TextRow
from sftplug.data.token_table import are_weighted, row_sums
from sftplug.plugin.calls import shortened
from sftplug.plugin.components import LengthPolicy
from sftplug.types.conversation import Conversation
from sftplug.types.ledger import Account
from sftplug.types.tokens import LongRow, TokenBatch


@dataclass(slots=True)
class Batch:
    """R rows as tokens with weights, N tokens in all."""

    texts: Sequence[TextRow]
    tokens: TokenBatch
    weights: NDArray[np.float32]
    cut: set[int] = field(default_factory=set)
    """Rows that lost tokens to the length policy."""
    parted: bool = False
    """Whether the rows are stretches of rows that were too long."""
    kept: NDArray[np.bool_] = field(init=False)
    """(R,) which rows reach the trainer."""
    lengths: NDArray[np.int64] = field(init=False)
    trained: NDArray[np.float64] = field(init=False)
    trained_tokens: NDArray[np.float64] = field(init=False)
    """(R,) tokens, sums of the loss weights, and tokens that have some."""

    def __post_init__(self) -> None:
        """Measure the rows: tokens, and the sum of the loss weights."""
        self.lengths = np.diff(np.searchsorted(self.tokens.row, np.arange(len(self.texts) + 1)))
        self.trained_tokens = row_sums(self.weights > 0, self.lengths)
        # Nearly always each weight is 0 or 1, and their sum the same count.
        weighted = are_weighted(self.weights)
        self.trained = row_sums(self.weights, self.lengths) if weighted else self.trained_tokens
        self.kept = self.trained > 0

    def where(self, chosen: NDArray[np.bool_], cut: set[int]) -> Batch:
        """Return the batch with only the tokens that `chosen`, of shape (N,), is true for."""
        return Batch(self.texts, self.tokens.where(chosen), self.weights[chosen], cut)


@dataclass(frozen=True, slots=True)
class Fitter:
    """Makes rows fit."""

    limit: int | None
    policy: LengthPolicy
    gate: ConversationRenderer
    encode: Callable[[Sequence[TextRow]], Batch]
    """Tokenizes and weighs rows that were rendered again."""

    def fit(self, batch: Batch, account: Account) -> list[Batch]:
        """Return `batch` and what stands in for its rows that are too long; tell `account` what became of each row."""
        if self.limit is None or not (batch.lengths > self.limit).any():
            _account_for_fitting(batch, account)
            return [batch]
        fitted = self._fit(batch)
        _account_for(fitted, batch, self.limit, account)
        return fitted

    def _fit(self, batch: Batch) -> list[Batch]:
        assert self.limit is not None
        cuts, again, parts = {}, [], {}
        for index in np.flatnonzero(batch.lengths > self.limit).tolist():
            shorter = self._shorten(batch, index)
            if isinstance(shorter, slice):
                cuts[index] = shorter
            elif stretches := [item for item in shorter if isinstance(item, slice)]:
                parts[index] = stretches
            elif not batch.texts[index].added:
                before = batch.texts[index]
                again += [
                    (before, replace(item, tags=before.conversation.tags))
                    for item in shorter
                    if isinstance(item, Conversation)
                ]
        parted = [_parted(batch, parts)] if parts else []
        batch = _cut(batch, cuts) if cuts else batch
        batch.kept &= batch.lengths <= self.limit
        # A row that is rendered again brings its own rows for divergent turns.
        anew = {text.number for text, _ in again}
        batch.kept &= np.array([text.number not in anew for text in batch.texts], dtype=bool)
        # What is left may still be too long once it is rendered (some templates print more for the last turn): it is
        # fitted again, with fewer messages each time.
        texts = [text for before, conversation in again for text in self._render(before, conversation)]
        return [batch, *parted, *(self._fit(self.encode(texts)) if texts else [])]

    def _shorten(self, batch: Batch, index: int) -> Sequence[Conversation] | slice | Sequence[slice]:
        conversation = batch.texts[index].conversation
        first, end = np.searchsorted(batch.tokens.row, [index, index + 1])
        message = batch.tokens.message[first:end]
        counts = np.bincount(message[message >= 0], minlength=len(conversation.messages))
        long = LongRow(conversation, counts.tolist(), int(batch.lengths[index]), int(self.limit or 0))
        return shortened(self.policy, long)

    def _render(self, before: TextRow, conversation: Conversation) -> Iterator[TextRow]:
        """Yield the rows of what is left of `before`; what cannot be trained safely is left out like what is lost."""
        yield from self.gate.rows(Example(conversation, before.origin), Account(""), before.number)


def _cut(batch: Batch, cuts: dict[int, slice]) -> Batch:
    bounds = np.concatenate([[0], np.cumsum(batch.lengths)])
    chosen = np.ones(len(batch.weights), dtype=bool)
    for index, kept in cuts.items():
        row = chosen[bounds[index] : bounds[index + 1]]
        row[:] = False
        row[kept] = True
    return batch.where(chosen, {*batch.cut, *cuts})


def _parted(batch: Batch, parts: Mapping[int, Sequence[slice]]) -> Batch:
    """Return the stretches of rows as rows of their own; a token that stands in several is trained in the first."""
    bounds = np.concatenate([[0], np.cumsum(batch.lengths)])
    places, again, texts = [], [], []
    for index, stretches in parts.items():
        seen = 0
        for number, stretch in enumerate(stretches, start=1):
            within = np.arange(*stretch.indices(int(batch.lengths[index])))
            places.append(bounds[index] + within)
            again.append(within < seen)
            seen = max(seen, int(within[-1]) + 1)
            texts.append(replace(batch.texts[index], origin=f"{batch.texts[index].origin}#{number}"))
    place = np.concatenate(places)
    weights = batch.weights[place]
    weights[np.concatenate(again)] = 0
    row = np.repeat(np.arange(len(places), dtype=np.int32), [len(part) for part in places])
    tokens = batch.tokens.where(place)
    rendered, said = [text.rendered.text for text in texts], [text.conversation for text in texts]
    return Batch(texts, replace(tokens, row=row, texts=rendered, conversations=said), weights, parted=True)


# --- accounting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """One row on its way out."""

    text: TextRow
    length: int
    trained: float
    trained_tokens: int
    kept: bool
    cut: bool
    part: bool


def _pieces(batch: Batch, rows: Sequence[int] | None = None) -> Iterator[_Piece]:
    lengths, trained, kept = batch.lengths.tolist(), batch.trained.tolist(), batch.kept.tolist()
    counts = batch.trained_tokens.astype(np.int64).tolist()
    for row in range(len(lengths)) if rows is None else rows:
        yield _Piece(
            batch.texts[row], lengths[row], trained[row], counts[row], kept[row], row in batch.cut, batch.parted
        )


def _account_for_fitting(batch: Batch, account: Account) -> None:
    """Tell `account` of rows of which none is too long: nearly all of them in one go."""
    number = np.array([text.number for text in batch.texts], dtype=np.int64)
    alone = np.ones(len(number), dtype=bool)
    alone[1:] &= number[1:] != number[:-1]
    alone[:-1] &= number[1:] != number[:-1]
    plain = alone & batch.kept
    trained, count = float(batch.trained[plain].sum()), int(batch.trained_tokens[plain].sum())
    account.keep_all(batch.lengths[plain].tolist(), trained, count)
    rest = _pieces(batch, np.flatnonzero(~plain).tolist())
    for _, group in groupby(rest, key=lambda piece: piece.text.number):
        pieces = list(group)
        _account_for_row(pieces, [piece for piece in pieces if piece.kept], None, account)


def _account_for(fitted: Sequence[Batch], asked: Batch, limit: int, account: Account) -> None:
    """Tell `account` what became of each row of `asked`, whose rows and what stands in for them are in `fitted`."""
    out: dict[int, list[_Piece]] = {}
    for batch in fitted:
        for piece in _pieces(batch):
            if piece.kept:
                out.setdefault(piece.text.number, []).append(piece)
    for number, pieces in groupby(_pieces(asked), key=lambda piece: piece.text.number):
        _account_for_row(list(pieces), out.get(number, []), limit, account)


def _account_for_row(before: Sequence[_Piece], after: Sequence[_Piece], limit: int | None, account: Account) -> None:
    first, origin = before[0], before[0].text.origin
    account.lengths[first.length] += 1
    for index, piece in enumerate(after):
        account.keep(piece.length, piece.trained, piece.trained_tokens, added=index > 0)
    wanted = sum(piece.trained for piece in before)
    long = [piece for piece in before if limit is not None and piece.length > limit]
    if long and wanted > 0:
        lost = wanted - sum(piece.trained for piece in after)
        account.lose(max(0.0, lost), max(piece.length for piece in long))
        reason = f"{long[0].length} tokens, {limit} allowed"
        if not after:
            account.drop("too long", origin, reason)
        else:
            account.note(_fate(first, after, limit), origin, reason)
    elif not after:
        account.drop("empty", origin, why_empty(first.text))


def _fate(first: _Piece, after: Sequence[_Piece], limit: int | None) -> str:
    if any(piece.cut for piece in after):
        return "cut"
    if any(piece.part for piece in after):
        return "in chunks"
    return "turn too long" if limit is not None and first.length <= limit else "shortened"


def why_empty(text: TextRow) -> str:
    """Say why a row has no token to train on."""
    if text.conversation.tokens is not None:
        return "trains none of its tokens, as its labels say."
    roles = {message.role for message in text.conversation.messages}
    if roles == {"document"}:
        return "is plain text, in which no turn is the assistant's. Use `masking: all`."
    if "assistant" not in roles:
        return "has no assistant turn."
    return "has an assistant turn, but the masking gives none of its tokens any weight."


def stops(batch: Batch) -> Counter[int]:
    """Count the last trained token of each turn in the rows kept: what the model learns to stop with."""
    tokens = batch.tokens
    trained = (batch.weights > 0) & batch.kept[tokens.row] & tokens.trainable
    last = trained.copy()
    last[:-1] &= ~(trained[1:] & (tokens.row[1:] == tokens.row[:-1]) & (tokens.message[1:] == tokens.message[:-1]))
    ids, turns = np.unique(tokens.ids[last], return_counts=True)
    return Counter(dict(zip(ids.tolist(), turns.tolist(), strict=True)))
