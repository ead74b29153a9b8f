"""What the trainer and the loading of the model are told in each process, so that the strategy is the recipe's."""

from __future__ import annotations

from typing import Any

from sftplug.launch.config import on_cpu
from sftplug.processes import is_launched, world_size
from sftplug.recipe.model import Recipe


def strategy_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of ``SFTConfig`` that the strategy sets; none for ``ddp``."""
    launch = recipe.launch
    if launch is None or not is_launched():
        return {}
    if launch.strategy.startswith("zero"):
        return {"deepspeed": _deepspeed(int(launch.strategy[-1]))}
    if launch.strategy == "fsdp2" and not on_cpu(recipe):
        return {"fsdp": True, "fsdp_config": {"version": 2}}
    return {}


def _deepspeed(stage: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration; ``auto`` is filled in by the trainer from its own options."""
    auto = "auto"
    return {
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": stage == 3},
        "bf16": {"enabled": auto},
        "fp16": {"enabled": auto},
        "gradient_clipping": auto,
        "gradient_accumulation_steps": auto,
        "train_batch_size": auto,
        "train_micro_batch_size_per_gpu": auto,
        "zero_allow_untested_optimizer": True,
    }


def sharding(recipe: Recipe) -> dict[str, Any]:
    """Return arguments of ``from_pretrained`` that split the weights between the processes.

    For FSDP2 on CPUs only: accelerate, which splits the loaded model elsewhere, would take DDP there without a word.
    """
    launch = recipe.launch
    if launch is None or launch.strategy != "fsdp2" or not on_cpu(recipe) or world_size() == 1:
        return {}
    from transformers import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=world_size())}
