"""What a plan needs to know of a recipe's trainer, without making one for a device that is not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.libraries.logging import quiet_libraries
from sftplug.plugin.calls import load_kwargs

if TYPE_CHECKING:
    import torch

    from sftplug.plugin.components import Optimizer
    from sftplug.recipe.model import Recipe


@dataclass(frozen=True, slots=True)
class Settings:
    """How the trainer would run the recipe on a device."""

    on_cpu: bool
    batch: int
    """Rows of one forward pass."""
    accumulation: int
    """Forward and backward passes of one update."""
    epochs: float
    max_steps: int
    """Updates in all; not positive when epochs say it."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass."""
    optimizer: str
    """Its name: one of transformers' ``optim``, or that of `chosen`."""
    dtype: torch.dtype
    """Type of the base weights that are not quantized."""
    autocast: torch.dtype | None
    """Type that matrix products are computed in, where it is not the weights' own."""
    chosen: Optimizer | None = None
    """The optimizer that the recipe names."""

    @property
    def computes_in(self) -> str:
        """The type that matrix products are computed in, by torch's name of it."""
        return str(self.autocast or self.dtype).removeprefix("torch.")


def settings_of(recipe: Recipe, *, on_cpu: bool) -> Settings:
    """Return how `sftplug train` would run the recipe: its own options, else sftplug's and TRL's defaults."""
    quiet_libraries()
    import torch

    dtype = dtype_of(recipe)
    checkpointing = recipe.train.get("gradient_checkpointing", recipe.train.get("activation_checkpointing"))
    return Settings(
        on_cpu=on_cpu,
        batch=int(_option(recipe, "per_device_train_batch_size")),
        accumulation=int(_option(recipe, "gradient_accumulation_steps")),
        epochs=float(_option(recipe, "num_train_epochs")),
        max_steps=int(_option(recipe, "max_steps")),
        checkpointing=not on_cpu if checkpointing is None else bool(checkpointing),
        optimizer=_optimizer(recipe),
        chosen=recipe.optimizer,
        dtype=dtype,
        # The trainer computes in bf16 or fp16 where an option says so. Where none does, sftplug lets it compute in the
        # type of the weights, if this is one of the two and there is an accelerator.
        autocast=next(
            (
                kind
                for name, kind in (("bf16", torch.bfloat16), ("fp16", torch.float16))
                if recipe.train.get(name, not on_cpu and dtype == kind)
            ),
            None,
        ),
    )


def _optimizer(recipe: Recipe) -> str:
    if recipe.optimizer is not None:
        return recipe.optimizer.type
    option = _option(recipe, "optim")
    return str(getattr(option, "value", option))


def dtype_of(recipe: Recipe) -> torch.dtype:
    """Return the type of weights that are not quantized: the backend's, else that of the model's configuration."""
    import torch

    dtype = load_kwargs(recipe.quantization).get("dtype", "auto")
    if isinstance(dtype, str):
        from sftplug.model.loading import model_config

        dtype = model_config(recipe).dtype if dtype == "auto" else getattr(torch, dtype)
    return dtype if isinstance(dtype, torch.dtype) else torch.get_default_dtype()


def _option(recipe: Recipe, name: str) -> Any:
    from trl import SFTConfig

    return recipe.train.get(name, SFTConfig.__dataclass_fields__[name].default)
