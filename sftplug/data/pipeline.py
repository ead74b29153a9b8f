"""The stages that turn the rows of one source into token rows, a batch at a time and two batches at once."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sftplug.data.convert import Example, convert
from sftplug.data.encoder import Encoder
from sftplug.data.engine import EncodedTexts
from sftplug.data.length import Batch, Fitter
from sftplug.data.mask import weigh
from sftplug.data.rendering import ConversationRenderer, TextRow
from sftplug.data.repairs import Repairs
from sftplug.data.row_tokens import TokenRows, with_row_tokens
from sftplug.data.row_warnings import LAID_OUT, Remarks
from sftplug.data.tokenize import look_alikes, tokenize
from sftplug.data.too_long import Early
from sftplug.errors import DataError, MaskError
from sftplug.plugin.calls import row_columns
from sftplug.plugin.components import Masking
from sftplug.types.conversation import Row
from sftplug.types.ledger import Account

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe, SourceSection

BATCH = 500
"""Rows that go through the stages together: enough for the tokenizer's threads, little enough for any memory."""
AHEAD = 2
"""So many batches are tokenized at once: while the last texts of one are encoded, a core would have nothing to do."""


@dataclass(frozen=True, slots=True)
class Stages:
    """What turns the rows of one source into token rows."""

    gate: ConversationRenderer
    encode: Encoder
    maskings: Sequence[Sequence[Masking]]
    recipe: Recipe
    account: Account
    measured: bool = False
    """Whether somebody wants to see every row, those too that are certainly too long."""

    def batches(self, source: SourceSection, rows: Iterable[Row]) -> Iterator[Batch]:
        """Yield token rows that fit; while one batch is masked, the next is read, rendered and tokenized."""
        data = self.recipe.data
        fitter = Fitter(data.max_length, data.too_long, self.gate, self._tokens)
        processors = (*source.process, *(data.process if source in data.train else ()))
        served = {name for processor in processors for name in row_columns(processor)}
        examples = convert(rows, source, self.account, data.system, served)
        examples = self._token_rows().rest(examples, self.account)
        examples = Repairs.of(self.recipe.spans).rows(examples, self.account)
        remarks = Remarks.of(self.maskings, source.format)
        early = None if self.measured else Early.of(self.encode.engines, self.recipe, self.maskings)
        examples = examples if early is None else early.rest(examples, self.account)
        noted = (remarks.note(example, self.account) for example in examples)
        # A batch of which every row was dropped has nothing to tokenize.
        texts = filter(None, (self._texts(batch) for batch in _batched(noted, BATCH)))
        for batch, encoded in _ahead(texts, self._encoded):
            yield from fitter.fit(self._tokens(batch, encoded), self.account)

    def _token_rows(self) -> TokenRows:
        return TokenRows(self.account.source, self.maskings, self.recipe.data.special_tokens_in_content)

    def _texts(self, examples: Sequence[Example]) -> list[TextRow]:
        texts = (self._allowed(list(self.gate.rows(example, self.account))) for example in examples)
        return [text for row in texts for text in row]

    def _allowed(self, row: list[TextRow]) -> list[TextRow]:
        """Return the texts of a row; none if it holds a control token and the recipe refuses that."""
        if self.recipe.data.special_tokens_in_content != "error":
            return row
        for text in row:
            for start, end in look_alikes(text.conversation, text.rendered, self.encode)[:1]:
                reason = f"a message holds the control token {text.rendered.text[start:end]!r}"
                self.account.drop("bad", text.origin, f"{reason}; `data.special_tokens_in_content` refuses that")
                return []
        return row

    def _encoded(self, texts: Sequence[TextRow]) -> EncodedTexts:
        said = [text.conversation.tokens for text in texts]
        given = {row: tokens for row, tokens in enumerate(said) if tokens is not None}
        written = ["" if row in given else text.rendered.text for row, text in enumerate(texts)]
        encoded = self.encode.engines.encode(written)
        return encoded.with_rows({row: self.gate.token_texts.encoded(tokens) for row, tokens in given.items()})

    def _tokens(self, texts: Sequence[TextRow], encoded: EncodedTexts | None = None) -> Batch:
        """Tokenize and weigh a batch of rows; `encoded` are the tokens of their texts, if they are known already."""
        conversations, rendered = [text.conversation for text in texts], [text.rendered for text in texts]
        encoded = self._encoded(texts) if encoded is None else encoded
        tokenized = tokenize(conversations, rendered, self.encode, encoded)
        tokens = with_row_tokens(tokenized.tokens)
        for index in tokenized.apart:
            _meet_boundary(texts[index].origin, self.recipe.spans.boundary == "split", self.account)
        for index, look_alike in tokenized.look_alikes.items():
            if index in tokenized.stuck:
                _refuse_stuck(texts[index].origin, look_alike)
            self._note_look_alike(texts[index], look_alike)
        weights = weigh(tokens, self.maskings)
        added = np.array([text.added for text in texts], dtype=bool)
        # In the row of a divergent turn all else is context, whatever the masking gives it: it is trained where it came
        # from.
        weights[added[tokens.row] & ~tokens.trainable] = 0
        return Batch(texts, tokens, weights)

    def _note_look_alike(self, text: TextRow, look_alike: str) -> None:
        """Tell of a control token that a row wrote; plain text is laid out by its author, who may forget the stop."""
        if self.encode.escapes(text.conversation):
            self.account.note("special token in content", text.origin, f"{look_alike!r} is tokenized as text")
        elif not text.conversation.plain:
            self.account.note("special token in content", text.origin, f"{look_alike!r} controls")
        else:
            said = (
                f"{look_alike!r} controls, as the text is laid out already; with "
                "`data.special_tokens_in_content: escape` it is text"
            )
            self.account.note(LAID_OUT, text.origin, said)
            if not self.gate.stops_itself(text.conversation):
                said = "holds control tokens and ends in none that stops: an EOS is added"
                self.account.note("no stop of its own", text.origin, said)


def _meet_boundary(origin: str, split: bool, account: Account) -> None:
    reason = "a token straddles the edge of a trained span"
    if not split:
        raise MaskError(f"{origin}: {reason}. Set `spans.boundary: split` to tokenize both sides apart.")
    account.note("boundary", origin, f"{reason}; tokenized apart, as inference does")


def _refuse_stuck(origin: str, text: str) -> None:
    raise DataError(
        f"{origin}: a message holds the control token {text!r}, and this tokenizer cannot tokenize it as text. "
        "Fix the row, or set `data.special_tokens_in_content: allow` to let it control."
    )


Item = TypeVar("Item")
Result = TypeVar("Result")


def _batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(islice(items, size)):
        yield batch


def _ahead(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what `work` makes of it, done in other threads while the next ones are made."""
    coming: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(AHEAD) as threads:
        for item in items:
            coming.append((item, threads.submit(work, item)))
            # So however slow the masking is, no more than `AHEAD` batches of tokens wait for it in memory.
            if len(coming) > AHEAD:
                yield _first(coming)
        while coming:
            yield _first(coming)


def _first(coming: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, future = coming.popleft()
    return item, future.result()


@contextmanager
def few_pauses() -> Iterator[None]:
    """Keep both threads at work.

    Python's collector would go through all objects of the libraries every few batches; and the thread that tokenizes
    would wait for Python's lock, which the other hands over every 5 ms, at each of its steps.
    """
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(interval / 10)
    # A batch of rows is tens of thousands of objects, none of which the collector is needed for: it is to come by once
    # a batch or two, and not at every hundredth of it.
    gc.set_threshold(max(threshold[0], 100 * BATCH), *threshold[1:])
    # What is there by now is out of the collector's sight until the end; what is made from here on is collected as
    # ever.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
