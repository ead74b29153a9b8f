"""What a loss is given: the trained tokens of a batch, a piece of them at a time, or their likelihood alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from sftplug.errors import ModelError
from sftplug.plugin.calls import head_nll, token_losses
from sftplug.types.tokens import IGNORED
from sftplug.types.trained_tokens import TrainedTokens

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.plugin.components import Head, Loss
    from sftplug.training.scores import Scores
    from sftplug.types.output_layer import OutputLayer

PIECE = 1024
"""Tokens whose logits are held in 32 bits at once: of 150,000 entries each they take 600 MB."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What models say at some positions of a batch, and what is known of the tokens there."""

    own: Scores
    """(B, P, …) of the model that is trained."""
    labels: Tensor
    """(B, P); `IGNORED` where a token is not trained."""
    weights: Tensor
    """(B, P)."""
    base: Scores | None = None
    """(B, P, …) of the base without its adapter."""
    provenance: Tensor | None = None
    """(B, P)."""
    teacher: Scores | None = None
    """(B, P, …) of another model."""

    def trained(self) -> Scored:
        """Return the (N, …) same of the trained tokens alone, row by row."""
        where = self.labels != IGNORED
        base, teacher = (None if scores is None else scores.at(where) for scores in (self.base, self.teacher))
        codes = None if self.provenance is None else self.provenance[where].long()
        return Scored(self.own.at(where), self.labels[where], self.weights[where], base, codes, teacher)

    def losses(self, loss: Loss | None) -> Tensor:
        """Return (N,) what `loss`, or else the negative log-likelihood, is of tokens that are all trained."""

        def piece(values: Tensor, low: int) -> Tensor:
            some = slice(low, low + PIECE)
            base, teacher = (None if scores is None else scores.logits(some) for scores in (self.base, self.teacher))
            codes = None if self.provenance is None or loss is None or not loss.reads_provenance else self.provenance
            logits, known = self.own.logits_of(values), None if codes is None else codes[some]
            tokens = TrainedTokens(logits, self.labels[some], self.weights[some], base, known, teacher)
            return tokens.nll() if loss is None else token_losses(loss, tokens)

        if not len(self.labels):
            return self.own.logits(slice(0)).sum(-1)  # a batch without a trained token has a gradient, of zeros
        # Split, and not sliced: the gradient of a slice is as large as the whole, with zeros around it.
        pieces = enumerate(torch.split(self.own.values, PIECE))
        return torch.cat([_again(piece, values, number * PIECE) for number, values in pieces])

    def losses_by(self, nll: Tensor, loss: Loss | None) -> Tensor:
        """Return (N,) what `loss` makes of the (N,) negative log-likelihood of tokens that are all trained."""
        if loss is None or not len(nll):
            return nll
        codes = self.provenance if loss.reads_provenance else None
        none = nll.new_zeros(len(nll), 0)
        return token_losses(loss, TrainedTokens(none, self.labels, self.weights, None, codes, None, nll))


def nll_by(head: Head, layer: OutputLayer, scored: Scored) -> Tensor:
    """Return (N,) the negative log-likelihood of tokens that are all trained, as a head computes it from states."""
    if not len(scored.labels):
        return layer.logits(scored.own.values).sum(-1)
    return head_nll(head, scored.own.values, layer, scored.labels)


def _again(piece: Callable[[Tensor, int], Tensor], values: Tensor, low: int) -> Tensor:
    """Return the losses of a piece; what they are made of is computed again in the backward pass, and not kept."""
    if not torch.is_grad_enabled():
        return piece(values, low)
    # Stopped early, by an exception, the second run would look as if the component had failed.
    with set_checkpoint_early_stop(False):
        losses: Tensor = checkpoint(piece, values, low, use_reentrant=False, preserve_rng_state=False)
    return losses


# --- the base ---------------------------------------------------------------------------------------------------------


@contextmanager
def as_base(model: Any) -> Iterator[None]:
    """Let an unwrapped PEFT model compute what its base does by itself: without adapter, gradients and dropout."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.disable_adapter():
            yield
    finally:
        model.train(training)


def refuse_without_base(loss: Loss, model: nn.Module) -> None:
    """Raise ModelError where `loss` asks for a base that cannot be had: what is trained is no adapter of PEFT."""
    if loss.reads_base and not hasattr(model, "disable_adapter"):
        raise ModelError(
            f"the loss '{loss.type}' compares with the base model, and what this recipe trains cannot be switched off. "
            "Choose an adapter of PEFT, such as `adapter: lora`, or another loss."
        )
