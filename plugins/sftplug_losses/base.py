"""Losses that keep a model near the one it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import Field, Loss, TrainedTokens

if TYPE_CHECKING:
    from torch import Tensor


class KlToBase(Loss):
    """Cross-entropy, and ``weight`` times how far the model's distribution of the token is from that of its base.

    The distance is the Kullback-Leibler divergence over the whole vocabulary, in nats: 0 before the first update. It
    keeps what the base knows where the rows do not ask for a change. The base is the model without its adapter.
    """

    type: Literal["kl_to_base"] = "kl_to_base"
    weight: float = Field(0.1, ge=0.0, allow_inf_nan=False)
    """Nats of likelihood that one nat of distance is worth."""
    direction: Literal["forward", "reverse"] = "forward"
    """``forward`` is KL(base || model), which asks the model to keep all that the base found likely, as in distillation
    (Hinton et al. 2015, arXiv:1503.02531); ``reverse`` is KL(model || base), which asks it to say nothing that the base
    found unlikely, as in reinforcement learning from feedback."""
    shorthand: ClassVar[str] = "weight"
    reads_base: ClassVar[bool] = True

    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Add the distance to the likelihood."""
        from torch.nn import functional

        assert tokens.base_logits is not None, "`reads_base` asks for them"
        model, base = tokens.log_probs(), tokens.base_logits.log_softmax(-1)
        of, to = (model, base) if self.direction == "forward" else (base, model)
        distance = functional.kl_div(of, to, log_target=True, reduction="none").sum(-1)
        return tokens.nll() + self.weight * distance
