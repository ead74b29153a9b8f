"""Rows as their sources have them -> rows as formats get them: read, processed, and on one side of the draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sftplug.data.ignored import without
from sftplug.errors import DataError, PluginError, RowError
from sftplug.plugin.calls import Outcome, label, outcomes, rows_of
from sftplug.plugin.components import RowProcessor
from sftplug.plugin.errors import complain
from sftplug.types.conversation import Row
from sftplug.types.ledger import Account, Processed
from sftplug.types.processing import RowContext

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe, SourceSection


def splits_of(recipe: Recipe) -> dict[str, Sequence[SourceSection]]:
    """Return split -> sources; a held-out fraction is of the training sources."""
    data = recipe.data
    held_out = data.train if data.eval_fraction else data.eval
    return {"train": data.train, **({"eval": held_out} if held_out else {})}


def seed_of(recipe: Recipe) -> int:
    """Return ``train.seed``. Raises DataError for one that nothing can be drawn with."""
    seed = int(recipe.train.get("seed", 42))
    if seed < 0:
        raise DataError(f"train.seed: must be at least 0, not {seed}.")
    return seed


@dataclass(slots=True)
class SplitRows:
    """The rows of one split, source by source; each is told to the account of its source."""

    recipe: Recipe
    split: str
    accounts: Sequence[Account]
    _together: _Together | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Lay the sources end to end where the recipe processes all training rows together."""
        if self._shared:
            counted = self._counted_accounts()
            streams = [self._own(index, account) for index, account in enumerate(counted)]
            chained: Iterator[_Tracked] = chain.from_iterable(streams)
            for step, processor in enumerate(self.recipe.data.process):
                chained = _processed(processor, chained, self._context("data", step), f"data.process[{step}]")
            self._together = _Together(chained, self.recipe.data.process[-1])

    @property
    def _sources(self) -> Sequence[SourceSection]:
        return splits_of(self.recipe)[self.split]

    @property
    def _of_train(self) -> bool:
        """Whether the rows are those of the training sources, on whichever side of the draw."""
        return self.split == "train" or bool(self.recipe.data.eval_fraction)

    @property
    def _shared(self) -> Sequence[RowProcessor]:
        return self.recipe.data.process if self._of_train else ()

    def of(self, index: int) -> Iterator[Row]:
        """Yield the rows of one source, to be asked for in the order of the sources.

        Raises PluginError for what is no `Row`, and for what a row processor does wrong.
        """
        source, account = self._sources[index], self.accounts[index]
        if self._together is not None:
            rows: Iterator[Row] = self._together.of(index)
        elif source.process:
            rows = self._own(index, self._counted(account))
        else:
            rows = _counting(_read(source), self._counted(account))
        if source.ignored:
            rows = (without(row, source.ignored) for row in rows)
        return self._drawn(rows, account) if self.recipe.data.eval_fraction else rows

    def _own(self, index: int, account: Account) -> Iterator[_Tracked]:
        """Yield the rows of a source as its own processors leave them."""
        source = self._sources[index]
        account.processed += [Processed(step.type) for step in (*source.process, *self._shared)]
        counted = _counting(_read(source), account)
        rows: Iterator[_Tracked] = (_Tracked(row.data, row.origin, index, account) for row in counted)
        where = f"data.{'train' if self._of_train else 'eval'}[{index}].process"
        for step, processor in enumerate(source.process):
            rows = _processed(processor, rows, self._context(where, step), f"{where}[{step}]")
        return rows

    def _context(self, where: str, step: int) -> RowContext:
        # Of the seed alone, two processors of a recipe would draw the same numbers.
        seed = np.random.SeedSequence([seed_of(self.recipe), *where.encode(), step]).generate_state(1)
        if self._of_train:
            return RowContext(int(seed[0]), "train", partial(_held_out, self.recipe))
        return RowContext(int(seed[0]), "eval", _not_of_themselves)

    # --- a fraction that is held out ---

    def _counted_accounts(self) -> list[Account]:
        return [self._counted(account) for account in self.accounts]

    def _counted(self, account: Account) -> Account:
        """Return the account that is told what is read and processed: once, where both sides of a draw read all."""
        is_second = bool(self.recipe.data.eval_fraction) and self.split == "eval"
        return Account(account.source) if is_second else account

    def _drawn(self, rows: Iterable[Row], account: Account) -> Iterator[Row]:
        """Yield the rows on one side of a random draw; both sides draw the same numbers."""
        random, fraction = np.random.default_rng(seed_of(self.recipe)), self.recipe.data.eval_fraction
        for row in rows:
            is_held_out = random.random() < fraction
            # The training account counts every row that is read, and gives back those that are held out. That of the
            # held-out rows counted none (see `_counted`), and takes those on its side.
            if self.split == "train":
                account.read -= is_held_out
            else:
                account.read += is_held_out
            if is_held_out == (self.split == "eval"):
                yield row


def _read(source: SourceSection) -> Iterator[Row]:
    """Yield the rows of a source, at most its ``first`` ones. Raises PluginError for one that is not a `Row`."""
    return islice(rows_of(source.source), source.first)


def _counting(rows: Iterable[Row], account: Account) -> Iterator[Row]:
    for row in rows:
        account.read += 1
        yield row


def _held_out(recipe: Recipe) -> Iterator[Row]:
    """Yield the rows of ``data.eval``, processed; what becomes of each is told where they are prepared."""
    accounts = [Account(label(source.source)) for source in recipe.data.eval]
    rows = SplitRows(recipe, "eval", accounts) if accounts else None
    for index in range(len(accounts)):
        assert rows is not None
        yield from rows.of(index)


def _not_of_themselves() -> Iterator[Row]:
    raise DataError("compares with the held-out rows, and these are held out. Name it for training rows.")


# --- row processors ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tracked(Row):
    """A row on its way from one processor to the next."""

    source: int = field(compare=False)
    """Index of the source that it is of; of a row that is made of others, that of the first."""
    account: Account = field(compare=False, repr=False)
    step: int = field(default=0, compare=False)
    """How many processors it has passed."""


def _processed(
    processor: RowProcessor, rows: Iterable[_Tracked], context: RowContext, where: str
) -> Iterator[_Tracked]:
    """Yield what `processor` makes of `rows`, and tell their accounts."""
    for outcome in outcomes(processor, _arriving(rows), context, where):
        _tell(processor, outcome)
        head: Any = outcome.of[0]
        for row in outcome.made:
            yield _Tracked(row.data, row.origin, head.source, head.account, head.step + 1)


def _arriving(rows: Iterable[_Tracked]) -> Iterator[_Tracked]:
    for row in rows:
        row.account.processed[row.step].read += 1
        yield row


def _tell(processor: RowProcessor, outcome: Outcome) -> None:
    """Count what became of rows: one of which nothing was said before is dropped, goes on, or is joined to another."""
    head: Any = outcome.of[0]
    step: Processed = head.account.processed[head.step]
    if outcome.dropped is not None:
        step.dropped += 1
        is_bad = isinstance(outcome.dropped, RowError)
        reason = f"{processor.type}: {outcome.dropped}" if is_bad else str(outcome.dropped)
        head.account.drop("bad" if is_bad else processor.type, head.origin, reason)
        return
    step.made += len(outcome.made)
    step.changed += outcome.changed
    news: list[Any] = [row for row, first in zip(outcome.of, outcome.first, strict=True) if first]
    for row in news:
        row.account.processed[row.step].joined += 1
    if any(row.account is head.account for row in news):  # the first row made stands for it
        step.made -= 1
        step.joined -= 1


@dataclass(slots=True)
class _Together:
    """The rows of all sources after what was done to them together, handed out source by source."""

    rows: Iterator[_Tracked]
    last: RowProcessor
    """The processor that they come from."""
    _ahead: _Tracked | None = None

    def of(self, index: int) -> Iterator[Row]:
        """Yield the rows of one source. Raises PluginError where one of an earlier source comes too late."""
        while (row := self._ahead or next(self.rows, None)) is not None:
            # The first row of the next source ends this one; it is kept for when that is asked for.
            if row.source > index:
                self._ahead = row
                return
            self._ahead = None
            if row.source < index:
                text = (
                    f"yields {row.origin} after rows of a later source, and `data.process` takes the sources in their "
                    "order. Name it in the `process` of each source"
                )
                raise PluginError(complain(self.last, _method(self.last), text))
            yield row


def _method(processor: RowProcessor) -> str:
    from sftplug.plugin.components import StreamProcessor

    return "stream" if isinstance(processor, StreamProcessor) else "process"
