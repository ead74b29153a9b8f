"""Losses of a token by how likely the model finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import Field, Loss, TrainedTokens

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Loss):
    """The negative log-likelihood of the token, ``-log p``: what language models are trained with."""

    type: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """This share ``s`` of the target goes to all tokens of the vocabulary alike: ``(1 - s) * -log p + s *`` the mean of
    all ``-log p`` (Szegedy et al. 2016, arXiv:1512.00567; as `torch.nn.CrossEntropyLoss` and transformers have it)."""
    z_loss: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """Adds this times the square of ``log Z``, the logarithm of the sum that the softmax divides by: it keeps logits
    from drifting away (PaLM, Chowdhery et al. 2022, arXiv:2204.02311, uses 1e-4)."""

    @property
    def is_nll(self) -> bool:
        """Whether nothing is added to the likelihood."""
        return not (self.label_smoothing or self.z_loss)

    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Return the cross-entropy with the smoothed target, and the square beside it."""
        from torch.nn import functional

        losses = functional.cross_entropy(
            tokens.logits, tokens.labels, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.z_loss:
            losses = losses + self.z_loss * tokens.logits.logsumexp(-1).square()
        return losses


class Dft(Loss):
    """Dynamic fine-tuning: ``-p * log p``, where ``p`` outside of the logarithm is a plain number without a gradient.

    Cross-entropy pulls hardest where the model finds the row least likely; weighed by ``p``, the update is that of
    reinforcement learning with a reward for the row's own tokens (Wu et al. 2025, arXiv:2508.05629). What is logged is
    the weighed loss: it is at most 1/e, and falls when tokens become *less* likely than that too. Judge a run by the
    negative log-likelihood of `sftplug eval`, or by metrics.
    """

    type: Literal["dft"] = "dft"
    reads_logits: ClassVar[bool] = False

    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Weigh the likelihood."""
        nll = tokens.nll()
        return nll * (-nll).exp().detach()


class Focal(Loss):
    """Focal loss: ``-(1 - p) ** gamma * log p``, in which tokens that the model knows already hardly count.

    Lin et al. 2017, arXiv:1708.02002; with a gradient through both factors, as there.
    """

    type: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    """0 is cross-entropy."""
    shorthand: ClassVar[str] = "gamma"
    reads_logits: ClassVar[bool] = False

    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Weigh the likelihood down where it is high."""
        nll = tokens.nll()
        if not self.gamma:
            return nll
        # Of a token that is certain the power's gradient would be 0 * infinity.
        missing = -(-nll).expm1()
        return missing.clamp(min=1e-12) ** self.gamma * nll
