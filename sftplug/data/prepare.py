"""Rows in, the dataset that the trainer gets out; nothing is lost on the way without a word.

Read `prepare` from top to bottom for the way of the data. Every stage tells the ledger what it dropped; what the
recipe does not allow to be dropped is collected over all rows and refused at the end, so that one run shows every
bad row at once.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sftplug.data.encoder import Encoder, encoder
from sftplug.data.held_out import TrainedRows
from sftplug.data.length import Batch, stops
from sftplug.data.limits import enforce_limits
from sftplug.data.mix import Available, mix
from sftplug.data.origins import Origins, OriginWriter
from sftplug.data.pack import pack
from sftplug.data.pipeline import Stages, few_pauses
from sftplug.data.process import SplitRows, seed_of, splits_of
from sftplug.data.rendering import ConversationRenderer, Policies, TextRow, open_gate
from sftplug.data.row_warnings import LAID_OUT
from sftplug.data.store import Store, key_of
from sftplug.data.token_table import Columns, Measures, RowSizes, TokenWriter, longest, open_dataset, rearrange
from sftplug.data.unchanged import Still
from sftplug.data.ways_out import Ways
from sftplug.errors import DataError
from sftplug.plugin.calls import label, source_notes, undecided_option
from sftplug.plugin.components import ChatTemplate
from sftplug.recipe.sources import sources_of
from sftplug.storage.disk import making_room
from sftplug.types.ledger import Account, Ledger
from sftplug.types.loss_groups import LossGroup, LossGroupCounter
from sftplug.types.progress import Progress, no_progress
from sftplug.types.tokens import MOST_SOURCES, TokenBatch

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe, SourceSection


class Watch(Protocol):
    """Sees the tokens of a batch with their weights, and which of its rows reach the trainer."""

    def __call__(
        self, texts: Sequence[TextRow], tokens: TokenBatch, weights: NDArray[np.float32], kept: NDArray[np.bool_]
    ) -> None:
        """`tokens` and `weights` hold N tokens, `texts` and `kept` the R rows they belong to."""


@dataclass(frozen=True)
class Prepared:
    """What the trainer gets."""

    files: Mapping[str, Callable[[], Dataset]]
    """Split -> what opens its rows: `train` and `eval` do, once somebody asks for them."""
    tokenizer: PreTrainedTokenizerBase
    """The tokenizer, with the chat template that was used."""
    ledger: Ledger
    order: tuple[tuple[int, ...], ...] | None
    """For each training row the prepared rows in it, where they were mixed or packed; None where each is itself."""
    origins: Origins
    """Where each training row came from."""
    end_tokens: frozenset[str] = frozenset()
    """The texts of tokens that end a turn which came with the model, beside its tokenizer."""
    groups: Mapping[str, Sequence[LossGroup]] = field(default_factory=dict)
    """Split -> what `provenance` tells its rows apart by: their source, and their tags."""
    _folder: Any = None
    """Keeps a temporary folder as long as the rows are in use."""

    @cached_property
    def train(self) -> Dataset:
        """Columns ``input_ids`` and ``labels``; ``weights`` too when some weight is neither 0 nor 1; ``provenance``
        where a callback asks for it; packed rows have ``seq_lengths``, the lengths of their documents."""
        return self.files["train"]()

    @cached_property
    def eval(self) -> Dataset | None:
        """The same of the held-out rows; None where there are none."""
        return self.files["eval"]() if "eval" in self.files else None

    @property
    def longest(self) -> int:
        """Tokens of the longest document of any row."""
        return max(longest(dataset) for dataset in (self.train, self.eval) if dataset is not None)


def prepare(  # noqa: PLR0913 - the edge of the pipeline: what comes in, and who watches
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = no_progress,
    end_tokens: frozenset[str] = frozenset(),
    watch: Watch | None = None,
    ledger: Ledger | None = None,
    store: Store | None = None,
    provenance: bool = False,
    templates: Sequence[ChatTemplate] = (),
) -> Prepared:
    """Turn the recipe's rows into token rows with labels, and on demand with what each token is of.

    `tokenizer` gets the recipe's chat template; `end_tokens` are the texts of the tokens that end a turn besides its
    EOS, from the model's generation configuration; `watch` sees each batch of training rows, and `ledger` is filled
    even if the rows are refused in the end. Rows that `store` has are not prepared again. `templates` are other chat
    templates that the recipe could name: one that helps is named where rows are refused for theirs.

    Raises DataError for rows that do not fit, and for a source that changes while it is read; MaskError for masks that
    fail their check. Each says every reason once, with how many rows and the origins of the first.
    """
    spans = recipe.spans
    policies = Policies(spans.missing_stop, spans.on_divergence, spans.dropped_reasoning, spans.dropped_tools)
    policies = replace(policies, plain_controls=recipe.data.special_tokens_in_content in ("auto", "allow"))
    gate = open_gate(recipe.chat_template, tokenizer, end_tokens, policies)
    ledger = Ledger() if ledger is None else ledger
    still = Still(source for _, source in sources_of(recipe))
    proofs = store.proofs if store is not None else None
    ways = Ways(gate, tokenizer, templates)
    work = _Work(recipe, gate, tokenizer, ledger, progress, watch, proofs, still, ways)
    # Whoever watches wants to see the rows being made, so they are neither looked up nor kept.
    key = key_of(recipe, tokenizer, end_tokens, store.code) if store is not None and watch is None else None
    opened = _Opening(tokenizer, end_tokens, _asks_provenance(recipe, provenance))
    if store is None or key is None:
        temporary = _Temporary()
        with making_room(temporary.folder, "TMPDIR", "prepared rows"):
            work.fill(temporary.folder)
        return opened(temporary.folder, ledger, temporary)
    waiting = partial(progress, "waiting for another process that prepares the same rows", 0, None)
    place, cached = store.get(key, work.fill, waiting)
    if cached:
        ledger = Ledger.from_state(json.loads((place / "ledger.json").read_text()))
        ledger.reused = True
    return opened(place, ledger)


class _Temporary:
    """A folder that goes when nobody holds it any more."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sftplug-"))
        # Not when `prepare` returns: the dataset maps the files of the folder into memory as long as somebody holds
        # `Prepared`.
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def _asks_provenance(recipe: Recipe, asks: bool) -> bool:
    """Whether the caller or a callback splits the loss. Raises DataError for more sources than can be told apart."""
    asks = asks or recipe.loss.reads_provenance or any(callback.reads_provenance for callback in recipe.callbacks)
    if asks and (most := max(len(recipe.data.train), len(recipe.data.eval))) > MOST_SOURCES:
        raise DataError(f"the loss can be split by {MOST_SOURCES} sources, and the recipe names {most}.")
    return asks


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens prepared rows as the trainer gets them."""

    tokenizer: PreTrainedTokenizerBase
    end_tokens: frozenset[str]
    provenance: bool

    def __call__(self, folder: Path, ledger: Ledger, keep: Any = None) -> Prepared:
        facts = json.loads((folder / "facts.json").read_text())
        files = {
            name: partial(
                open_dataset, folder / f"{name}.arrow", weighted=known["weighted"], provenance=self.provenance
            )
            for name, known in facts.items()
        }
        order = folder / "order.npy"
        rows = _by_row(np.load(order)) if order.is_file() else None
        origins = Origins(folder / "train.origins", rows)
        groups = {name: [LossGroup(*group) for group in known["groups"]] for name, known in facts.items()}
        return Prepared(files, self.tokenizer, ledger, rows, origins, self.end_tokens, groups, keep)


def _by_row(placed: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Return the rows that -1 ends."""
    # [0, 3, -1, 1, 2, -1] is ((0, 3), (1, 2)). Behind the last -1 there is nothing.
    ends = np.flatnonzero(placed < 0)
    return tuple(tuple(row[row >= 0].tolist()) for row in np.split(placed, ends + 1)[:-1])


@dataclass(slots=True)
class _Work:
    """Prepares all splits of a recipe into a folder."""

    recipe: Recipe
    gate: ConversationRenderer
    tokenizer: PreTrainedTokenizerBase
    ledger: Ledger
    progress: Progress
    watch: Watch | None
    proofs: Path | None
    still: Still
    ways: Ways

    def fill(self, folder: Path) -> None:
        """Write the rows of every split, and what is known of them. Raises for what is refused."""
        data = self.recipe.data
        escape, escape_plain = data.special_tokens_in_content != "allow", data.special_tokens_in_content != "auto"
        controls = self.gate.controls(self.tokenizer, self.recipe.model.add_tokens)
        with few_pauses():
            encode = encoder(self.tokenizer, controls, escape=escape, engine=data.engine, proofs=self.proofs)
            encode = replace(encode, escape_plain=escape_plain)
            trained = TrainedRows() if len(splits_of(self.recipe)) > 1 else None
            made = {name: self._split(name, encode, folder, trained) for name in splits_of(self.recipe)}
        # Before anything is said of the rows: of a file that was written to meanwhile, nobody knows which rows these
        # were.
        self.still.check()
        self.ledger.engine = encode.engines.name
        self.ledger.preamble = self.gate.preamble
        names = self.tokenizer.convert_ids_to_tokens(list(self.ledger.stop_ids))
        self.ledger.stops = dict(zip(map(str, names), self.ledger.stop_ids.values(), strict=True))
        idle = self.recipe.chat_template.type if not self.gate.templated else "tokenizer"
        enforce_limits(self.ledger, data, self.ways.of, "" if idle == "tokenizer" else idle)
        for name, split in made.items():
            self._arrange(name, split, folder)
        facts = {name: {"weighted": split.measures.weighted, "groups": split.groups} for name, split in made.items()}
        (folder / "facts.json").write_text(json.dumps(facts))
        (folder / "ledger.json").write_text(json.dumps(self.ledger.to_state()))

    def _split(self, name: str, encode: Encoder, folder: Path, trained: TrainedRows | None) -> _Split:
        """Write the rows of one split, source by source; held-out ones are compared with those that are `trained`."""
        writer, bounds = TokenWriter(folder / f"{name}.rows"), [0]
        origins = OriginWriter(folder / f"{name}.origins")
        sources = splits_of(self.recipe)[name]
        accounts = [self.ledger.open(name, label(source.source)) for source in sources]
        rows, groups = SplitRows(self.recipe, name, accounts), LossGroupCounter([source.tags for source in sources])
        for index, (source, account) in enumerate(zip(sources, accounts, strict=True)):
            account.said = source_notes(source.source)
            masking, watched = source.masking or self.recipe.masking, self.watch is not None
            stages = Stages(self.gate, encode, masking, self.recipe, account, watched)
            for batch in stages.batches(source, rows.of(index)):
                self.ledger.stop_ids.update(stops(batch))
                if self.watch is not None and name == "train":
                    self.watch(batch.texts, batch.tokens, batch.weights, batch.kept)
                if trained is not None and name == "train":
                    trained.add(batch)
                elif trained is not None:
                    trained.compare(batch, self.recipe.data, account)
                codes = batch.tokens.provenance(_numbers(groups, index, batch)[batch.tokens.row])
                columns = Columns(batch.tokens.ids, batch.weights, codes)
                writer.write(columns, RowSizes(batch.lengths, batch.trained), batch.kept)
                # In step with the rows that are kept: line k of the origins is row k of the table.
                origins.write(text.origin for text, kept in zip(batch.texts, batch.kept.tolist(), strict=True) if kept)
                self.progress(f"preparing {name}", account.read, None)
            bounds.append(writer.rows)
        for source, account in zip(sources, accounts, strict=True):
            account.said += tuple(_said_of_plain(source, account))
            assert account.balanced(), f"{account.source}: rows were lost without a word: {account}"
        origins.close()
        return _Split(sources, bounds, writer.close(), [(group.source, group.tags) for group in groups.groups()])

    def _arrange(self, name: str, split: _Split, folder: Path) -> None:
        """Bring the rows into the order in which the trainer gets them: mixed, and packed."""
        rows, final = folder / f"{name}.rows", folder / f"{name}.arrow"
        data, seed, order = self.recipe.data, seed_of(self.recipe), None
        if name == "train":
            order, self.ledger.mixed = mix(list(split.available(data.mix.by)), data.mix.stop, seed)
        # With any other packing rows stay documents: the trainer puts them together a batch at a time.
        if data.packing == "rows" and data.max_length is not None:
            lengths = split.measures.lengths
            order = np.arange(len(lengths)) if order is None else order
            placed, self.ledger.packed[name] = pack(rows, final, order, lengths, data.max_length)
            _remember(folder, name, placed)
        elif order is not None:
            rearrange(rows, final, order)
            # Each row alone, in the form that packed ones have: 4, 2 is kept as 4, -1, 2, -1.
            _remember(folder, name, np.stack([order, np.full(len(order), -1)], axis=1).ravel())
        else:
            rows.rename(final)
        rows.unlink(missing_ok=True)


def _said_of_plain(source: SourceSection, account: Account) -> Iterator[str]:
    """Yield what is to be said of rows that the format could make turns of, and the recipe does not say what to do."""
    undecided = account.plain - account.noted[LAID_OUT]
    if undecided > 0 and (option := undecided_option(source.format)):
        yield (
            f"{undecided:,} rows are joined as they stand, and no chat template renders them; "
            f"`format: {{type: {source.format.type}, {option}}}` makes turns of them"
        )


def _numbers(groups: LossGroupCounter, source: int, batch: Batch) -> NDArray[np.int64]:
    """Return (R,) the group of each row of a batch. Raises DataError where tags have too many values."""
    try:
        found = [groups.number(source, text.conversation.tags) for text in batch.texts]
    except ValueError as error:
        names = ", ".join(batch.texts[0].conversation.tags)
        text = f"the rows have {error}: tags are for columns of few values. Leave some of these out of `tags`: {names}."
        raise DataError(text) from error
    return np.array(found, dtype=np.int64)


def _remember(folder: Path, split: str, placed: NDArray[np.int64]) -> None:
    """Keep which prepared row of the training split stands where."""
    if split == "train":
        np.save(folder / "order.npy", placed)


@dataclass(frozen=True, slots=True)
class _Split:
    """The written rows of one split."""

    sources: Sequence[SourceSection]
    bounds: Sequence[int]
    """Where the rows of each source begin, and where the last one's end."""
    measures: Measures
    groups: Sequence[tuple[int, Mapping[str, str]]]
    """Source and tags of each group of rows."""

    def available(self, by: str) -> Iterator[Available]:
        """Yield what there is of each source to mix."""
        sizes = {
            "rows": np.ones(len(self.measures.lengths)),
            "tokens": self.measures.lengths.astype(np.float64),
            "trained_tokens": self.measures.trained,
        }[by]
        for source, low, high in zip(self.sources, self.bounds, self.bounds[1:], strict=False):
            yield Available(label(source.source), low, sizes[low:high], source.share, source.epochs)
