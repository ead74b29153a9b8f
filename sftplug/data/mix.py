"""Sources -> one order of rows: how often each is seen, and in which shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sftplug.types.ledger import Mixed


@dataclass(frozen=True, slots=True)
class Available:
    """The rows of one source that could be trained."""

    name: str
    first: int
    """Index of its first row among the rows of all sources."""
    sizes: NDArray[np.float64]
    """(R,) what each row counts for in the shares: 1, its tokens, or its trained tokens."""
    share: float | None
    epochs: float


def mix(
    sources: Sequence[Available], stop: Literal["first", "all"], seed: int
) -> tuple[NDArray[np.int64] | None, list[Mixed]]:
    """Return the order of rows, None for all of them as they are, and what of each source is in it.

    Without shares the sources follow one another, each as often as its epochs say. With shares they are drawn without
    replacement, pass by pass, until the share is reached, and shuffled; the same seed draws the same rows.
    """
    if not sources or all(source.share is None and source.epochs == 1 for source in sources):
        return None, []
    amounts = [float(source.sizes.sum()) * source.epochs for source in sources]
    shares = _normalized(sources)
    if shares is not None:
        # Of two sources of 100 rows with shares of 3/4 and 1/4, the first is used up after 133 rows in all, the second
        # after 400.
        reach = [amount / share for amount, share in zip(amounts, shares, strict=True)]
        total = min(reach) if stop == "first" else max(reach)
        amounts = [total * share for share in shares]
    random = np.random.default_rng(seed)
    drawn = [_draw(source, amount, random) for source, amount in zip(sources, amounts, strict=True)]
    order = np.concatenate([source.first + rows for source, rows in zip(sources, drawn, strict=True)])
    if shares is not None:
        order = random.permutation(order)
    return order, list(_realised(sources, shares, drawn))


def _normalized(sources: Sequence[Available]) -> list[float] | None:
    given = [source.share for source in sources if source.share is not None]
    return [share / sum(given) for share in given] if given else None


def _draw(source: Available, amount: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Return rows whose sizes add up to `amount`, as nearly as whole rows allow; whole passes first."""
    whole = float(source.sizes.sum())
    if whole == 0:
        return np.zeros(0, dtype=np.int64)
    everything = np.arange(len(source.sizes), dtype=np.int64)
    # 1.5 passes over 100 rows are every row once, and 50 of them, drawn, once more.
    passes, rest = divmod(amount, whole)
    if rest < 1e-9 * whole or whole - rest < 1e-9 * whole:  # a whole number of passes, but for rounding
        return np.tile(everything, round(amount / whole))
    shuffled = random.permutation(everything)
    reached = np.concatenate([[0], np.cumsum(source.sizes[shuffled])])
    # Rows of 5, 5 and 9 and a rest of 12: the sums are 0, 5, 10 and 19, so the first two are nearest.
    count = int(np.argmin(np.abs(reached - rest)))
    return np.concatenate([np.tile(everything, int(passes)), np.sort(shuffled[:count])])


def _realised(
    sources: Sequence[Available], shares: Sequence[float] | None, drawn: Sequence[NDArray[np.int64]]
) -> Iterator[Mixed]:
    amounts = [float(source.sizes[rows].sum()) for source, rows in zip(sources, drawn, strict=True)]
    total = sum(amounts) or 1.0
    for index, (source, rows) in enumerate(zip(sources, drawn, strict=True)):
        have = len(source.sizes)
        yield Mixed(
            source=source.name,
            rows=len(rows),
            passes=len(rows) / have if have else 0.0,
            share=shares[index] if shares is not None else 0.0,
            realised=amounts[index] / total,
            unused=have - len(np.unique(rows)),
        )
