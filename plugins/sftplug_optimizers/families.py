"""Optimizers of transformers that take the same options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from sftplug import Field, ModelError, Recipe, TrainedParameters
from sftplug_optimizers.library import Blockwise, LibraryOptimizer

_SHARED_OUT = ("ddp", "fsdp2", "zero2", "zero3")
_WHOLE = ("ddp",)
"""Where each process has whole parameters: FSDP2 holds pieces, which these fail on or were not shown to take."""
_PLAIN = ("ddp", "zero2", "zero3")
"""bitsandbytes' kernels take plain tensors, and FSDP2 holds tensors of its own sort."""
_BITS = "bitsandbytes holds the state in 8 or in 32 bits, as the name says (Dettmers et al. 2021, arXiv:2110.02861); "
_PAGED = "paged, it goes to main memory when that of the GPU is full."


class Lion(Blockwise):
    """The sign of a mean of gradients."""

    about: ClassVar[str] = f"Lion (Chen et al. 2023, arXiv:2302.06675); {_BITS}{_PAGED}"
    strategies: ClassVar[tuple[str, ...]] = _PLAIN

    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """Share of the mean of gradients in an update."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """Share of the mean that is left after an update."""


class Adam(LibraryOptimizer):
    """The mean of gradients over the root of that of their squares."""

    about: ClassVar[str] = "AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101)."
    strategies: ClassVar[tuple[str, ...]] = _SHARED_OUT

    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """Share of the mean of gradients that is left after an update."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """Share of the mean of their squares that is left after an update."""
    epsilon: float = Field(1e-8, ge=0.0, allow_inf_nan=False)
    """What is added to the root of that mean."""


class BlockwiseAdam(Adam, Blockwise):
    """The same, with its state in few bits."""

    about: ClassVar[str] = f"AdamW; {_BITS}{_PAGED}"
    strategies: ClassVar[tuple[str, ...]] = _PLAIN


class TorchAo(Adam):
    """The same, by torchao."""

    about: ClassVar[str] = "AdamW with its state in 4 or 8 bits, by torchao."
    strategies: ClassVar[tuple[str, ...]] = ("ddp", "fsdp2")

    bf16_stochastic_round: bool = False
    """Round weights in bfloat16 up or down by chance, so that small updates are not lost."""


class AnyPrecision(Adam):
    """The same, in types of choice."""

    about: ClassVar[str] = "AdamW of torchdistx, with its state in the types of choice."

    use_kahan_summation: bool = False
    """Keep beside each weight what rounding has cut off."""
    momentum_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the mean of gradients."""
    variance_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of that of their squares."""
    compensation_buffer_dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    """Type of what rounding has cut off."""


class StableAdamW(Adam):
    """AdamW with updates of bounded size."""

    about: ClassVar[str] = "AdamW whose updates are clipped one by one (Wortsman et al. 2023, arXiv:2304.13013)."
    strategies: ClassVar[tuple[str, ...]] = _WHOLE

    decouple_lr: bool = False
    """Let weight decay not depend on the rate."""
    max_lr: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    """Highest rate of the schedule, by which a decay that does not depend on it is scaled."""


class AdEMAMix(Adam, Blockwise):
    """Adam with a second, slower mean of gradients."""

    about: ClassVar[str] = f"AdEMAMix (Pagliardini et al. 2024, arXiv:2409.03137); {_BITS}{_PAGED}"
    strategies: ClassVar[tuple[str, ...]] = _PLAIN

    beta3: float = Field(0.9999, ge=0.0, lt=1.0)
    """Share of the slow mean of gradients that is left after an update."""
    alpha: float = Field(5.0, ge=0.0, allow_inf_nan=False)
    """How much the slow mean counts."""
    t_alpha: int | None = Field(None, gt=0)
    """Updates over which `alpha` rises to its value; null starts with it."""
    t_beta3: int | None = Field(None, gt=0)
    """Updates over which `beta3` rises to its value; null starts with it."""


class GrokAdamW(LibraryOptimizer):
    """AdamW that amplifies slow gradients."""

    about: ClassVar[str] = "AdamW that amplifies gradients which change slowly (Lee et al. 2024, arXiv:2405.20233)."
    strategies: ClassVar[tuple[str, ...]] = _WHOLE

    alpha_init: float = Field(0.98, ge=0.0, le=1.0)
    """Share of the slow gradient that is left after an update, at first."""
    lamb: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    """How much the slow gradient counts."""
    gamma: float = Field(0.1, ge=0.0, allow_inf_nan=False)
    """By how much less the mean of gradients holds in each later layer."""
    grokking_signal_decay_rate: float = Field(0.1, ge=0.0, allow_inf_nan=False)
    """How fast `alpha_init` falls with the signal."""
    gradient_clipping: float = Field(1.0, ge=0.0, allow_inf_nan=False)
    """Largest norm of a gradient, beside ``train.max_grad_norm``."""


class Adafactor(LibraryOptimizer):
    """A mean for each row and column."""

    about: ClassVar[str] = (
        "a mean of squares for each row and column of a matrix (Shazeer and Stern 2018, arXiv:1804.04235)."
    )
    strategies: ClassVar[tuple[str, ...]] = _WHOLE


class Sgd(LibraryOptimizer):
    """Gradient descent."""

    about: ClassVar[str] = "stochastic gradient descent, as `torch.optim.SGD` has it."
    strategies: ClassVar[tuple[str, ...]] = _SHARED_OUT

    momentum: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the momentum that is left after an update."""
    dampening: float = Field(0.0, ge=0.0, le=1.0)
    """Share of a gradient that the momentum is not given."""
    nesterov: bool = False
    """Look a step ahead along the momentum."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so where there is no momentum to look along, or it is dampened."""
        if self.nesterov and not (self.momentum and not self.dampening):
            yield "`nesterov` needs a `momentum`, such as 0.9, and no `dampening`."
        if self.dampening and not self.momentum:
            yield "`dampening` has no effect without `momentum`. Leave it out."


class Adagrad(LibraryOptimizer):
    """The gradient over the root of the sum of its squares."""

    about: ClassVar[str] = "Adagrad (Duchi et al. 2011), as `torch.optim.Adagrad` has it."
    strategies: ClassVar[tuple[str, ...]] = _SHARED_OUT

    lr_decay: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """The rate of update n is divided by 1 + n times this."""
    eps: float = Field(1e-10, ge=0.0, allow_inf_nan=False)
    """What is added to the root."""


class RmsProp(LibraryOptimizer):
    """The gradient over the root of the mean of its squares."""

    about: ClassVar[str] = "RMSprop (Hinton 2012), as `torch.optim.RMSprop` has it."
    strategies: ClassVar[tuple[str, ...]] = _SHARED_OUT

    alpha: float = Field(0.99, ge=0.0, lt=1.0)
    """Share of the mean of squares that is left after an update."""
    eps: float = Field(1e-8, ge=0.0, allow_inf_nan=False)
    """What is added to the root."""
    momentum: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the momentum that is left after an update."""
    centered: bool = False
    """Take the variance in the place of the mean of squares."""


class BlockwiseRmsProp(Blockwise):
    """The same, with its state in few bits."""

    about: ClassVar[str] = f"RMSprop; {_BITS.removesuffix('; ')}."
    strategies: ClassVar[tuple[str, ...]] = _PLAIN


class LowRank(LibraryOptimizer):
    """An optimizer of projections of the gradients of all linear layers."""

    rank: int = Field(128, gt=0)
    """Rank of the projection."""
    update_proj_gap: int = Field(200, gt=0)
    """Updates after which it is chosen anew."""
    proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    """Which side of a matrix is projected."""

    def grouped(self, trained: TrainedParameters, groups: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        """Return groups as transformers tells them apart, of what is trained, and with weight decay."""
        # transformers groups all parameters by their names, frozen ones too: by `id` those that are trained are found
        # again.
        known = {id(p.value): p for p in trained.parameters}
        found: list[dict[str, Any]] = []
        for group in groups or ():
            inside = [known[id(value)] for value in group["params"] if id(value) in known]
            options = {name: value for name, value in group.items() if name not in ("params", "weight_decay")}
            found += trained.groups(inside, **options)
        return found

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so where it would update weights in the backward pass."""
        if self.type.endswith("_layerwise"):
            yield _in_backward(self.type.removesuffix("_layerwise"))


class GaLore(LowRank):
    """Projections that gradients themselves decide."""

    about: ClassVar[str] = (
        "GaLore, the optimizer on low-rank projections of gradients (Zhao et al. 2024, arXiv:2403.03507)."
    )
    strategies: ClassVar[tuple[str, ...]] = _WHOLE

    scale: float = Field(0.25, gt=0.0, allow_inf_nan=False)
    """What the update of a projected matrix is multiplied by."""


class Apollo(LowRank):
    """Projections at random."""

    about: ClassVar[str] = (
        "APOLLO, AdamW with step sizes from a low-rank projection (Zhu et al. 2024, arXiv:2412.05270)."
    )
    strategies: ClassVar[tuple[str, ...]] = _WHOLE

    proj: Literal["random", "svd"] = "random"
    """How the projection is chosen."""
    scale_type: Literal["channel", "tensor"] = "channel"
    """What has a step size of its own: a channel, or a matrix."""
    scale: float = Field(1.0, gt=0.0, allow_inf_nan=False)
    """What the update of a projected matrix is multiplied by."""


class ScheduleFreeAdam(Adam):
    """AdamW and RAdam without a schedule."""

    about: ClassVar[str] = "without a schedule (Defazio et al. 2024, arXiv:2405.15682): their mean is what is saved."
    strategies: ClassVar[tuple[str, ...]] = _WHOLE
    constant_rate: ClassVar[bool] = True

    weight_lr_power: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    """Power of the rate by which weights count in the mean."""
    r: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """Power of the number of the update by which they count."""


class ScheduleFreeSgd(LibraryOptimizer):
    """Gradient descent without a schedule."""

    about: ClassVar[str] = ScheduleFreeAdam.about
    strategies: ClassVar[tuple[str, ...]] = _WHOLE
    constant_rate: ClassVar[bool] = True

    weight_lr_power: float = Field(2.0, ge=0.0, allow_inf_nan=False)
    """Power of the rate by which weights count in the mean."""
    r: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """Power of the number of the update by which they count."""


class InBackward(LibraryOptimizer):
    """Updates during the backward pass."""

    about: ClassVar[str] = (
        "updates each weight in the backward pass; not to be had here (Lv et al. 2023, arXiv:2306.09782)."
    )

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say that it cannot be had."""
        yield _in_backward("adafactor")

    def optimizer(self, trained: TrainedParameters, learning_rate: float) -> Any:
        """Refuse."""
        raise ModelError(f"optimizer {self.type}: {_in_backward('adafactor')}")


def _in_backward(other: str) -> str:
    return (
        "updates each weight during the backward pass, when gradients are neither clipped nor summed over batches yet, "
        f"and keeps its state where no checkpoint looks. Choose another, such as `{other}`."
    )
