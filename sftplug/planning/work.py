"""How many updates a run makes, of how many tokens, and how long that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftplug.planning.result import Range, Work

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.planning.settings import Settings
    from sftplug.recipe.model import Recipe
    from sftplug.util.device import Device


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The training rows as the trainer gets them, mixed and packed."""

    count: int
    tokens: int | None = None
    """Of all rows; None where only their number is known."""
    longest: int | None = None
    trained: float | None = None
    """Share of the tokens that count in the loss."""


def rows_of(prepared: Prepared) -> TrainingRows:
    """Return what is known of prepared rows."""
    import pyarrow.compute as compute

    lengths = compute.list_value_length(prepared.train.data.column("input_ids")).to_numpy()
    accounts = [account for split, account in prepared.ledger.accounts() if split == "train"]
    tokens, trained = sum(item.tokens for item in accounts), sum(item.trained_tokens for item in accounts)
    share = trained / tokens if tokens else 1.0
    return TrainingRows(len(lengths), int(lengths.sum()), int(lengths.max(initial=1)), share)


def work_of(  # noqa: PLR0913 - what there is to know
    settings: Settings,
    rows: TrainingRows | None,
    longest: int,
    flops_per_token: float,
    device: Device,
    processes: int = 1,
) -> Work:
    """Return what is computed in a run of so many processes whose longest row has `longest` tokens."""
    per_update = settings.batch * settings.accumulation * processes
    updates = updates_of(settings, rows, processes)
    tokens = None if updates is None else _tokens(settings, rows, updates * processes, longest)
    flops = tokens.high * flops_per_token if tokens is not None else None
    seconds, speed = None, device.flops_in(settings.computes_in)
    if flops is not None and tokens is not None and speed is not None:
        slow, fast = (share * speed * processes for share in device.efficiency)
        seconds = tokens.low * flops_per_token / fast, flops / slow
    return Work(rows.count if rows else None, per_update, updates, tokens, flops_per_token, flops, seconds)


def updates_of(settings: Settings, rows: TrainingRows | None, processes: int) -> int | None:
    """Return how many updates there are, as transformers' trainer counts them."""
    if settings.max_steps > 0:
        return settings.max_steps
    if rows is None:
        return None
    # 10 rows in batches of 4 are 3 batches, and for 2 processes 2 each.
    batches = math.ceil(math.ceil(rows.count / settings.batch) / processes)
    return math.ceil(settings.epochs * max(math.ceil(batches / settings.accumulation), 1))


def _tokens(settings: Settings, rows: TrainingRows | None, updates: int, longest: int) -> Range:
    """Return the tokens of so many updates; at most so many rows of the greatest length where rows are unknown."""
    seen = updates * settings.batch * settings.accumulation
    if settings.max_steps <= 0 and rows is not None:
        seen = math.ceil(rows.count * settings.epochs)
    if rows is None or rows.tokens is None:
        return Range(seen, seen * longest)
    tokens = round(seen * rows.tokens / max(rows.count, 1))
    return Range(tokens, tokens)


def processes_of(recipe: Recipe) -> int:
    """Return in how many processes the recipe runs, as far as that can be told here."""
    from sftplug.launch.config import processes

    return max(processes(recipe, recipe.launch), 1) if recipe.launch is not None else 1
