"""Do two models say the same? Their logits at the same positions of the same rows, compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sftplug.types.tokens import IGNORED

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROWS, POSITIONS = 8, 32
"""How many rows are compared, and how many positions of each: 256 times the vocabulary is held, and no more."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the logits of one model are from those of another."""

    relative: float
    """Mean absolute difference, as a share of the standard deviation of the logits."""
    mean: float
    """Mean absolute difference."""
    max: float
    """Largest absolute difference."""
    kl: float
    """Mean Kullback-Leibler divergence of the second model's predictions from the first's, in nats a token."""
    same_top: float
    """Share of positions at which both find the same token most likely."""
    rows: int
    positions: int

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them."""
        return asdict(self)


def probes(rows: Iterable[Mapping[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """Return (ids, positions) of the first rows: positions whose next token is trained, spread over the row."""
    found = []
    for row in rows:
        # The logits at position t are for token t + 1.
        before = [index - 1 for index, label in enumerate(row["labels"]) if label != IGNORED and index > 0]
        if before:
            # Of 100 positions every fourth is taken: 25, and no more than 32.
            step = max(1, -(-len(before) // POSITIONS))
            found.append((list(row["input_ids"]), before[::step]))
        if len(found) == ROWS:
            break
    return found


def logits_at(model: PreTrainedModel, wanted: Sequence[tuple[list[int], list[int]]]) -> list[Tensor]:
    """Return for each row (P, V) the logits at its positions, in fp32 on the CPU."""
    import torch

    found = []
    with torch.inference_mode():
        for ids, positions in wanted:
            logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
            found.append(logits[0, positions].float().cpu())
    return found


def difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> Difference:
    """Return how far the logits `after` are from those `before`; each a list of (P, V).

    Rows of a vocabulary that one model has padded are compared where both have logits.
    """
    import torch

    width = min(before[0].shape[1], after[0].shape[1])
    first, second = (torch.cat([rows[:, :width] for rows in logits]).double() for logits in (before, after))
    apart, spread = (first - second).abs(), float(first.std())
    logs = first.log_softmax(-1)
    return Difference(
        relative=float(apart.mean()) / max(spread, 1e-12),
        mean=float(apart.mean()),
        max=float(apart.max()),
        kl=float((logs.exp() * (logs - second.log_softmax(-1))).sum(-1).mean()),
        same_top=float((first.argmax(-1) == second.argmax(-1)).double().mean()),
        rows=len(before),
        positions=len(first),
    )
