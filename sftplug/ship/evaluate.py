"""Measure a trained model on rows: loss, perplexity and accuracy of the trained tokens.

A batch at a time, and of its logits only those of trained positions; what is kept between batches is a table of sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - loaded only when a model is measured
from torch.nn import functional  # noqa: TID253

from sftplug.training.collator import Collator
from sftplug.training.loss_sums import LossAccumulator, by_code
from sftplug.types.loss_groups import LossGroups
from sftplug.types.tokens import IGNORED, LossSums

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


CHUNK = 256
"""Positions, of all rows of a batch together, whose logits are held in fp32 at once."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What was measured."""

    loss: LossSums
    """Sums of the weighted loss and of the weights."""
    right: LossSums
    """In place of the loss, how many trained tokens were the most likely ones; of the weights, how many there are."""

    def to_dict(self) -> dict[str, Any]:
        """Return loss, perplexity and accuracy of all tokens, and of those of each source, role, part and tag."""
        loss, weight = float(self.loss.loss.sum()), float(self.loss.weight.sum())
        tokens = int(self.right.weight.sum())
        split = {kind: self._of(kind) for kind in ("source", "role", "part", *self.loss.tagged)}
        whole = _numbers(loss / weight, float(self.right.loss.sum()) / tokens)
        return {**whole, "tokens": tokens, "by": split}

    def _of(self, kind: str) -> dict[str, dict[str, float]]:
        right = self.right.by(kind)
        return {
            name: {**_numbers(mean, right[name][0]), "tokens": int(right[name][1])}
            for name, (mean, _) in self.loss.by(kind).items()
        }


def _numbers(loss: float, accuracy: float) -> dict[str, float]:
    # Beyond e ** 709 there is no float.
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": accuracy}


def score(
    model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], collator: Collator, groups: LossGroups, size: int
) -> Scores | None:
    """Return the scores of `rows` in batches of `size`; None if no token has a weight.

    Rows have ``input_ids``, ``labels``, ``provenance`` and perhaps ``weights``; `groups` are what
    provenance counts.
    """
    losses, rights = LossAccumulator(groups), LossAccumulator(groups)
    with torch.inference_mode():
        for first in range(0, len(rows), size):
            batch = collator([rows[index] for index in range(first, min(first + size, len(rows)))])
            _add({name: tensor.to(model.device) for name, tensor in batch.items()}, model, losses, rights)
    loss, right = losses.take(), rights.take()
    return Scores(loss, right) if loss is not None and right is not None and loss.weight.sum() else None


def _add(batch: dict[str, Tensor], model: PreTrainedModel, losses: LossAccumulator, rights: LossAccumulator) -> None:
    """Add a batch to the sums."""
    targets, codes = batch["labels"][:, 1:], batch["provenance"][:, 1:]
    trained = targets != IGNORED
    weights = batch["weights"][:, 1:] if "weights" in batch else trained.float()
    nll, right = _token_scores(model, batch, targets)
    losses.add(by_code(codes, nll * weights, weights, len(losses.groups)))
    rights.add(by_code(codes, right.float(), trained.float(), len(rights.groups)))


def _token_scores(model: PreTrainedModel, batch: Mapping[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, L-1) the negative log-likelihood of each target, and whether it is the most likely token.

    Both are 0 where the target is ignored.
    """
    needed = (targets != IGNORED).any(dim=0).nonzero().flatten()
    logits = _logits_at(model, batch, needed - targets.shape[1] - 1)
    nll = torch.zeros(targets.shape, device=targets.device)
    right = torch.zeros(targets.shape, dtype=torch.bool, device=targets.device)
    step = max(1, CHUNK // len(targets))
    for low in range(0, len(needed), step):
        at, some = needed[low : low + step], logits[:, low : low + step].float()
        wanted = targets[:, at]
        # `mT`: it wants the vocabulary second, (B, V, P).
        nll[:, at] = functional.cross_entropy(some.mT, wanted, ignore_index=IGNORED, reduction="none")
        right[:, at] = some.argmax(-1) == wanted
    return nll, right


def _logits_at(model: PreTrainedModel, batch: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """Return (B, P, V) the logits at (P,) negative `positions`, the others not computed where the model can do so."""
    import inspect

    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    unwrap = getattr(model, "get_base_model", None)
    base = unwrap() if callable(unwrap) else model
    if "logits_to_keep" in inspect.signature(type(base).forward).parameters:
        kept: Tensor = model(**given, use_cache=False, logits_to_keep=positions).logits
        return kept
    everything: Tensor = model(**given, use_cache=False).logits
    return everything[:, positions]
