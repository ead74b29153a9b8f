"""Rows in, the dataset that the trainer gets out; nothing is lost on the way without a word.

Read `prepare` from top to bottom for the way of the data. Every stage tells the ledger what it dropped; what the
recipe does not allow to be dropped is collected over all rows and refused at the end, so that one run shows every
bad row at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sftplug.data.convert import Example, convert
from sftplug.data.gate import Gate, Policies, TextRow, open_gate
from sftplug.data.ledger import Account, Ledger, length_quantiles
from sftplug.data.mask import weigh
from sftplug.data.pack import pack
from sftplug.data.sources import Row, read_file, read_hub
from sftplug.data.tokenize import Encoder, encoder, tokenize
from sftplug.errors import DataError, MaskError
from sftplug.progress import Progress, no_progress
from sftplug.tokens import TokenBatch

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from sftplug.components import Masking
    from sftplug.recipe.model import DataSection, Recipe, SourceSection

BATCH = 1000
"""Rows that go through the stages together: enough for the tokenizer's threads, little enough for any memory."""
IGNORED = -100
"""The label that the loss leaves out (`torch.nn.CrossEntropyLoss`)."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the trainer gets."""

    train: Dataset
    """Columns ``input_ids`` and ``labels``; ``weights`` too when some weight is neither 0 nor 1; packed rows have
    ``seq_lengths``, the lengths of their documents, and ``documents``, their indices."""
    eval: Dataset | None
    tokenizer: PreTrainedTokenizerBase
    """The tokenizer, with the chat template that was used."""
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Stages:
    """What turns conversations into token rows, chosen by the recipe once."""

    gate: Gate
    encode: Encoder
    maskings: Sequence[Sequence[Masking]]
    data: DataSection
    split_boundaries: bool
    """Whether tokens that straddle the edge of a span are tokenized apart, rather than refused."""
    watch: Watch | None = None
    """Sees every batch of training rows."""


class Watch(Protocol):
    """Sees the tokens of a batch with their weights, and which of its rows reach the trainer."""

    def __call__(
        self, texts: Sequence[TextRow], tokens: TokenBatch, weights: NDArray[np.float32], kept: NDArray[np.bool_]
    ) -> None:
        """`tokens` and `weights` hold N tokens, `texts` and `kept` the R rows they belong to."""


def prepare(  # noqa: PLR0913 - the edge of the pipeline: what comes in, and who watches
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = no_progress,
    end_tokens: frozenset[str] = frozenset(),
    watch: Watch | None = None,
    ledger: Ledger | None = None,
) -> Prepared:
    """Turn the recipe's rows into token rows with labels.

    `tokenizer` gets the recipe's chat template; `end_tokens` are the texts of the tokens that end a turn besides its
    EOS, from the model's generation configuration; `watch` sees each batch of training rows,
    and `ledger` is filled even if the rows are refused in the end.

    Raises DataError for rows that do not fit, MaskError for masks that fail their check; each names the rows by their
    origin, the first 20 and how many there are.
    """
    spans = recipe.spans
    policies = Policies(spans.missing_stop, spans.on_divergence, spans.dropped_reasoning)
    gate = open_gate(recipe.chat_template, tokenizer, end_tokens, policies)
    encode = encoder(tokenizer, escape=recipe.data.special_tokens_in_content != "allow", engine=recipe.data.engine)
    stages = Stages(gate, encode, recipe.masking, recipe.data, spans.boundary == "split", watch)
    ledger = Ledger() if ledger is None else ledger
    unwatched = replace(stages, watch=None)
    splits = {
        split: _prepare_split(split, sources, stages if split == "train" else unwatched, ledger, progress)
        for split, sources in _splits(recipe).items()
    }
    ledger.stops = {str(tokenizer.convert_ids_to_tokens(stop)): turns for stop, turns in ledger.stop_ids.items()}
    refuse(ledger, recipe.data)
    datasets = {split: _dataset(split, tables, recipe.data, ledger) for split, tables in splits.items()}
    return Prepared(datasets["train"], datasets.get("eval"), tokenizer, ledger)


# --- rows -------------------------------------------------------------------------------------------------------------


def _splits(recipe: Recipe) -> dict[str, list[tuple[SourceSection, Iterable[Row]]]]:
    """Return split -> sources with their rows; a held-out fraction is drawn from the training rows."""
    data, seed = recipe.data, int(recipe.train.get("seed", 42))
    if data.eval_fraction:
        return {
            "train": [(source, _draw(source, seed, data.eval_fraction, held_out=False)) for source in data.train],
            "eval": [(source, _draw(source, seed, data.eval_fraction, held_out=True)) for source in data.train],
        }
    splits: dict[str, list[tuple[SourceSection, Iterable[Row]]]] = {}
    for split, sources in (("train", data.train), ("eval", data.eval)):
        if sources:
            splits[split] = [(source, read(source)) for source in sources]
    return splits


def read(source: SourceSection) -> Iterator[Row]:
    """Yield the rows of `source`, at most its ``first`` ones."""
    if source.path is not None:
        rows = read_file(Path(source.path))
    else:
        rows = read_hub(str(source.hub), source.config, source.split, source.revision)
    return islice(rows, source.first)


def _draw(source: SourceSection, seed: int, fraction: float, *, held_out: bool) -> Iterator[Row]:
    """Yield the rows on one side of a random draw; both sides draw the same numbers."""
    random = np.random.default_rng(seed)
    return (row for row in read(source) if (random.random() < fraction) == held_out)


# --- one split --------------------------------------------------------------------------------------------------------


def _prepare_split(
    split: str,
    sources: Iterable[tuple[SourceSection, Iterable[Row]]],
    stages: Stages,
    ledger: Ledger,
    progress: Progress,
) -> list[pa.Table]:
    tables = []
    for source, rows in sources:
        account = ledger.open(split, str(source.path or source.hub))
        examples = convert(rows, source.format, account)
        for batch in _batched(examples, BATCH):
            texts = [text for example in batch for text in stages.gate.rows(example, account)]
            if texts:
                tables.append(_token_rows(texts, stages, account, ledger))
            progress(f"preparing {split}", account.read, None)
    return tables


def _batched(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    while batch := list(islice(examples, size)):
        yield batch


def _token_rows(texts: Sequence[TextRow], stages: Stages, account: Account, ledger: Ledger) -> pa.Table:
    """Tokenize and mask a batch; keep the rows that have something to train on and are not too long."""
    tokenized = tokenize([text.conversation for text in texts], [text.rendered for text in texts], stages.encode)
    tokens = tokenized.tokens
    for index in tokenized.apart:
        _meet_boundary(texts[index].origin, stages.split_boundaries, account)
    for index, look_alike in tokenized.escaped.items():
        _meet_look_alike(texts[index].origin, look_alike, stages.data, account)
    weights = weigh(tokens, stages.maskings)
    added = np.array([text.added for text in texts], dtype=bool)
    weights[added[tokens.row] & ~tokens.trainable] = 0
    lengths = np.bincount(tokens.row, minlength=len(texts))
    trained = np.bincount(tokens.row, weights=weights, minlength=len(texts))
    measured = [Measured(*item) for item in zip(texts, lengths.tolist(), trained.tolist(), strict=True)]
    for _, pieces in groupby(measured, key=lambda item: item.text.number):
        _account_for(list(pieces), stages.data.max_length, account)
    kept = np.array([item.fate(stages.data.max_length) is None for item in measured], dtype=bool)
    ledger.stop_ids.update(_stops(tokens, weights, kept))
    if stages.watch is not None:
        stages.watch(texts, tokens, weights, kept)
    return _table(tokens.ids, weights, lengths, kept)


def _meet_boundary(origin: str, split: bool, account: Account) -> None:
    reason = "a token straddles the edge of a trained span"
    if not split:
        raise MaskError(f"{origin}: {reason}. Set `spans.boundary: split` to tokenize both sides apart.")
    account.note("boundary", origin, f"{reason}; tokenized apart, as inference does")


def _meet_look_alike(origin: str, text: str, data: DataSection, account: Account) -> None:
    if data.special_tokens_in_content == "error":
        remedy = "Set `data.special_tokens_in_content: escape` to tokenize it as text."
        raise DataError(f"{origin}: a message holds the control token {text!r}. {remedy}")
    account.note("special token in content", origin, f"{text!r} is tokenized as text")


@dataclass(frozen=True, slots=True)
class Measured:
    """A text row, its length in tokens and the sum of its loss weights."""

    text: TextRow
    length: int
    trained: float

    def fate(self, max_length: int | None) -> str | None:
        """Return the stage at which the row ends, or None if it reaches the trainer."""
        if self.trained == 0:
            return "empty"
        return "too long" if max_length is not None and self.length > max_length else None


def _account_for(pieces: Sequence[Measured], max_length: int | None, account: Account) -> None:
    """Tell `account` what became of one row that was read and of the pieces it was split into."""
    account.lengths[pieces[0].length] += 1
    kept = [piece for piece in pieces if piece.fate(max_length) is None]
    long = [piece for piece in pieces if piece.fate(max_length) == "too long"]
    for index, piece in enumerate(kept):
        account.keep(piece.length, piece.trained, added=index > 0)
    origin = pieces[0].text.origin
    account.lost += sum(piece.trained for piece in long)
    if long:
        reason = f"{long[0].length} tokens, {max_length} allowed"
        account.note("turn too long", origin, reason) if kept else account.drop("too long", origin, reason)
    elif not kept:
        account.drop("empty", origin, _why_empty(pieces[0].text))


def _why_empty(text: TextRow) -> str:
    roles = {message.role for message in text.conversation.messages}
    if roles == {"document"}:
        return "is plain text, in which no turn is the assistant's. Use `masking: all`."
    if "assistant" not in roles:
        return "has no assistant turn."
    return "has an assistant turn, but the masking gives none of its tokens any weight."


def _stops(tokens: TokenBatch, weights: np.ndarray, kept: np.ndarray) -> Counter[int]:
    """Count the last trained token of each turn: what the model learns to stop with."""
    trained = (weights > 0) & kept[tokens.row] & tokens.trainable
    last = trained.copy()
    last[:-1] &= ~(trained[1:] & (tokens.row[1:] == tokens.row[:-1]) & (tokens.message[1:] == tokens.message[:-1]))
    ids, turns = np.unique(tokens.ids[last], return_counts=True)
    return Counter(dict(zip(ids.tolist(), turns.tolist(), strict=True)))


# --- out --------------------------------------------------------------------------------------------------------------


def _table(ids: np.ndarray, weights: np.ndarray, lengths: np.ndarray, kept: np.ndarray) -> pa.Table:
    """Return the rows kept as an Arrow table; the flat arrays go in as they are, cut by offsets."""
    chosen = np.repeat(kept, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int32)
    ids, weights = ids[chosen], weights[chosen]
    columns = {
        "input_ids": ids.astype(np.int32),
        "labels": np.where(weights > 0, ids, IGNORED).astype(np.int32),
        "weights": weights.astype(np.float32),
    }
    return pa.table({name: pa.ListArray.from_arrays(offsets, pa.array(flat)) for name, flat in columns.items()})


def _dataset(split: str, tables: Sequence[pa.Table], data: DataSection, ledger: Ledger) -> Dataset:
    """Return the tables as one dataset, packed if the recipe says so; without ``weights`` if the labels say it all."""
    from datasets import Dataset

    table = pa.concat_tables(tables) if tables else _table(*(np.zeros(0, kind) for kind in (int, float, int, bool)))
    flat = table["weights"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not np.any((flat != 0) & (flat != 1)):
        table = table.drop_columns(["weights"])
    if data.packing == "rows" and data.max_length is not None:
        table, ledger.packed[split] = pack(table, data.max_length)
    return Dataset(table)


def refuse(ledger: Ledger, data: DataSection) -> None:
    """Raise for every row that ended where the recipe does not allow it: MaskError for masks, else DataError."""
    fatal = ["unsafe"]
    fatal += ["bad"] if data.on_bad_row == "error" else []
    fatal += ["empty"] if data.on_empty == "error" else []
    fatal += ["too long"] if data.too_long == "error" else []
    letters = [letter for _, account in ledger.accounts() for letter in _letters(account, fatal)]
    letters += [letter for _, account in ledger.accounts() for letter in _losses(account, data)]
    letters += (
        [
            _nothing_left(split, accounts, data)
            for split, accounts in ledger.splits.items()
            if not any(account.kept for account in accounts)
        ]
        if not letters
        else []
    )
    if letters:
        unsafe = [account for _, account in ledger.accounts() if account.dropped["unsafe"]]
        text = "\n".join(letters)
        raise MaskError(text, picture=unsafe[0].picture) if unsafe else DataError(text)


_SAYINGS = {
    "bad": ("do not fit their format", "Mend them, or set `data.on_bad_row: skip`."),
    "unsafe": ("have no loss mask that can be trusted", "The chat template and these rows do not go together."),
    "empty": ("have no token to train on", "Mend them or the masking, or set `data.on_empty: drop`."),
    "too long": ("are too long", "Raise `data.max_length`, or set `data.too_long: drop`."),
}


def _letters(account: Account, fatal: Sequence[str]) -> Iterator[str]:
    """Yield a paragraph for each stage in `fatal` that ended rows of this source."""
    for stage in fatal:
        count = account.dropped[stage]
        if count:
            what, remedy = _SAYINGS[stage]
            shown = account.reasons[stage]
            more = [f"  … and {count - len(shown)} more"] if count > len(shown) else []
            head = f"{count} of {account.read} rows of {account.source} {what}:"
            yield "\n".join([head, *(f"  {line}" for line in shown), *more, remedy])


def _losses(account: Account, data: DataSection) -> Iterator[str]:
    """Yield a paragraph when more of what would be trained is too long than the recipe allows."""
    share = account.lost / (account.lost + account.trained) if account.lost else 0.0
    if data.too_long == "drop" and account.trained and share > data.max_loss:
        quantiles = length_quantiles(account.lengths)
        yield (
            f"{account.dropped['too long']} of {account.read} rows of {account.source} are too long: {share:.1%} of "
            f"its trained tokens would be lost, {data.max_loss:.1%} are allowed. Lengths in tokens: {quantiles}. "
            f"Set `data.max_length: {quantiles['99%']}` to keep 99 % of the rows, or raise `data.max_loss`."
        )


def _nothing_left(split: str, accounts: Sequence[Account], data: DataSection) -> str:
    dropped: Counter[str] = sum((account.dropped for account in accounts), Counter())
    lengths: Counter[int] = sum((account.lengths for account in accounts), Counter())
    why = ", ".join(f"{count} {stage}" for stage, count in dropped.items()) or "no rows were read"
    hint = (
        f" Lengths: {length_quantiles(lengths)}; data.max_length is {data.max_length}." if dropped["too long"] else ""
    )
    return f"no row of the split '{split}' is left: {why}.{hint if dropped['too long'] else ''}"
