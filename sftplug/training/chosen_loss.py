"""The loss that a recipe chooses: what its component is given, a piece of the trained tokens at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from sftplug.errors import ModelError
from sftplug.plugin.calls import token_losses
from sftplug.types.tokens import IGNORED
from sftplug.types.trained_tokens import TrainedTokens

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.plugin.components import Loss

PIECE = 1024
"""Tokens whose logits are held in 32 bits at once: of 150,000 entries each they take 600 MB."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The logits at some positions of a batch, and what is known of the tokens there."""

    logits: Tensor
    """(B, P, V) of the model."""
    labels: Tensor
    """(B, P); `IGNORED` where a token is not trained."""
    weights: Tensor
    """(B, P)."""
    base_logits: Tensor | None = None
    """(B, P, V) of the base without its adapter."""
    provenance: Tensor | None = None
    """(B, P)."""
    teacher_logits: Tensor | None = None
    """(B, P, T) of another model."""

    def losses(self, loss: Loss) -> Tensor:
        """Return (N,) what `loss` says of the trained tokens, row by row."""
        trained = self.labels != IGNORED

        def at(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[trained]

        logits, labels, weights = self.logits[trained], self.labels[trained], self.weights[trained]
        base, teacher = at(self.base_logits), at(self.teacher_logits)
        codes = at(self.provenance if loss.reads_provenance else None)

        def piece(logits: Tensor, low: int) -> Tensor:
            some = slice(low, low + PIECE)
            there, taught = (None if values is None else values[some].float() for values in (base, teacher))
            known = None if codes is None else codes[some].long()
            tokens = TrainedTokens(logits.float(), labels[some], weights[some], there, known, taught)
            return token_losses(loss, tokens)

        lows = range(0, len(labels), PIECE)
        if not lows:
            return logits.float().sum(-1)  # of none: a batch without a trained token has a gradient, of zeros
        return torch.cat([_run(piece, logits[low : low + PIECE], low) for low in lows])


def _run(piece: Callable[[Tensor, int], Tensor], logits: Tensor, low: int) -> Tensor:
    """Return the losses of a piece; what they are made of is computed again in the backward pass, and not kept."""
    if not logits.requires_grad:
        return piece(logits, low)
    # Stopped early, by an exception, the second run would look as if the component had failed.
    with set_checkpoint_early_stop(False):
        losses: Tensor = checkpoint(piece, logits, low, use_reentrant=False, preserve_rng_state=False)
    return losses


# --- logits -----------------------------------------------------------------------------------------------------------


def logits_at(model: Any, own: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> tuple[Tensor, Any]:
    """Return (B, P, V) the logits at `positions`, the others not computed where the model can do so; its outputs.

    `own` is the `model` within whatever several processes wrap around it; `positions`: (P,) negative, counted from the
    end.
    """
    unwrap = getattr(own, "get_base_model", None)
    base = unwrap() if callable(unwrap) else own
    if "logits_to_keep" in inspect.signature(type(base).forward).parameters:
        outputs = model(**inputs, use_cache=False, logits_to_keep=positions)
        return outputs.logits, outputs
    outputs = model(**inputs, use_cache=False)
    return outputs.logits[:, positions], outputs


def base_logits(model: Any, own: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
    """Return (B, P, V) those of the base without its adapter."""
    with as_base(own):
        return logits_at(model, own, inputs, positions)[0]


def teacher_logits(teacher: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
    """Return (B, P, T) those of another model for the same rows."""
    # Of a mixture of experts that is trained, the outputs of its routers are wanted; of a teacher they are not.
    given = {name: value for name, value in inputs.items() if name != "output_router_logits"}
    with torch.no_grad():
        return logits_at(teacher, teacher, given, positions)[0]


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
