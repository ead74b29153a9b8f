"""A loss that learns from a larger model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import Field, Loss, ModelName, TrainedTokens

if TYPE_CHECKING:
    from torch import Tensor


class Distill(Loss):
    """Cross-entropy, mixed with how far the model's distribution of the token is from a teacher's.

    ``(1 - weight) * nll + weight * T**2 * KL(teacher || model)``, both distributions at temperature T, over the
    vocabulary: knowledge distillation (Hinton et al. 2015, arXiv:1503.02531, section 2). The teacher says of every
    token which others would have done, and rows do not.
    """

    type: Literal["distill"] = "distill"
    teacher: ModelName
    """The other model: a folder, or a name on the Hub, with ``@`` and a commit behind it to pin it. It must have the
    tokenizer of the model that is trained."""
    weight: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the teacher; at 1 the rows' own tokens do not count."""
    temperature: float = Field(1.0, gt=0.0, allow_inf_nan=False)
    """What the logits are divided by: above 1, what the teacher finds unlikely counts for more."""
    shorthand: ClassVar[str] = "teacher"

    @property
    def teacher_model(self) -> str:
        """The recipe's."""
        return self.teacher

    def token_losses(self, tokens: TrainedTokens) -> Tensor:
        """Mix the distance from the teacher with the likelihood."""
        from torch.nn import functional

        assert tokens.teacher_logits is not None, "`teacher_model` asks for them"
        size = min(tokens.logits.shape[1], tokens.teacher_logits.shape[1])  # what is beyond it is padding of a table
        model, teacher = (
            (logits[:, :size] / self.temperature).log_softmax(-1) for logits in (tokens.logits, tokens.teacher_logits)
        )
        # The first argument is the distribution that is learned: this is KL(teacher || model).
        distance = functional.kl_div(model, teacher, log_target=True, reduction="none").sum(-1)
        return (1 - self.weight) * tokens.nll() + self.weight * self.temperature**2 * distance
