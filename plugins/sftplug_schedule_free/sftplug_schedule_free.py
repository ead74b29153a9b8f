"""Schedule-free AdamW, by the library of its authors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import Field, Optimizer, TrainedParameters, hookimpl, require

if TYPE_CHECKING:
    from torch import optim


class ScheduleFree(Optimizer):
    """AdamW without a schedule: what is evaluated and saved is a mean of all weights so far.

    So it need not be known beforehand how long the run is (Defazio et al. 2024, arXiv:2405.15682). The rate is
    constant after a warmup, and may be higher than with a schedule. Weights are turned into the mean and back for each
    evaluation and each checkpoint, which rounds them: a run is the same to the bit as one with the same evaluations and
    checkpoints.
    """

    type: Literal["schedule_free"] = "schedule_free"
    constant_rate: ClassVar[bool] = True
    # Weights that are changed between two steps do not reach those that FSDP2 has gathered for an evaluation.
    strategies: ClassVar[tuple[str, ...]] = ("ddp",)
    beta1: float = Field(0.9, gt=0.0, lt=1.0)
    """Where gradients are taken: this share from the mean, the rest from the newest weights."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """Share of the mean of squared gradients that is left after an update."""
    epsilon: float = Field(1e-8, gt=0.0, allow_inf_nan=False)
    """What is added to the root of that."""
    r: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """Power of the number of the update by which weights count in the mean; 0 counts early and late ones alike."""
    weight_lr_power: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    """Power of the rate by which they count: those of the warmup hardly do."""

    def optimizer(self, trained: TrainedParameters, learning_rate: float) -> optim.Optimizer:
        """Return `schedulefree.AdamWScheduleFree`; the run calls its `train` and `eval`."""
        library = require("schedulefree", needed_by="optimizer schedule_free", install="pip install schedulefree")
        made: optim.Optimizer = library.AdamWScheduleFree(
            trained.groups(),
            lr=learning_rate,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            r=self.r,
            weight_lr_power=self.weight_lr_power,
        )
        return made


@hookimpl
def sftplug_optimizers() -> list[type[Optimizer]]:
    """Offer it."""
    return [ScheduleFree]
