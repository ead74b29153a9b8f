"""What the trainer and the loading of the model are told in each process, so that the strategy is the recipe's."""

from __future__ import annotations

import os
import sysconfig
from typing import TYPE_CHECKING, Any

from sftplug.launch.config import on_cpu
from sftplug.recipe.model import Recipe
from sftplug.util.processes import is_launched, world_size

if TYPE_CHECKING:
    from transformers import Trainer


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


def find_build_tools(recipe: Recipe) -> None:
    """Let DeepSpeed find ninja: pip puts it beside this Python, which may have been started by its path.

    An environment that is not activated has its commands nowhere on the ``PATH``.
    """
    beside, path = sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)
    if recipe.launch is not None and recipe.launch.strategy.startswith("zero") and beside not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([path, beside])


def sharding(recipe: Recipe) -> dict[str, Any]:
    """Return arguments of ``from_pretrained`` that split the weights between the processes.

    For FSDP2 on CPUs only: accelerate, which splits the loaded model elsewhere, would take DDP there without a word.
    Not where an adapter is added later: see `split_beneath_adapter`.
    """
    if not (_splits_itself(recipe) and recipe.adapter.trains_base):
        return {}
    from transformers import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=world_size())}


def split_beneath_adapter(recipe: Recipe, trainer: Trainer) -> None:
    """Split the frozen weights between the processes once the adapter is there, for FSDP2 on CPUs.

    Not when they are loaded: PEFT reads from whole weights how they are quantized. The adapter stays whole, and the
    trainer keeps it the same in all processes.
    """
    if not _splits_itself(recipe) or recipe.adapter.trains_base:
        return
    from torch.distributed.fsdp import fully_shard
    from transformers import DistributedConfig

    model, base = trainer.model, _beneath_adapter(trainer.model)
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    # Layer by layer, so that only one of them is whole at a time.
    for module in [module for module in base.modules() if type(module).__name__ in (base._no_split_modules or ())]:
        fully_shard(module, ignored_params=trained)
    fully_shard(model, ignored_params=trained)
    # As after `sharding`: the trainer is not to wrap the model, and to keep the adapter equal.
    base.config.distributed_config = DistributedConfig(fsdp_size=world_size())
    trainer.is_distributed_loading_by_transformers = True


def _beneath_adapter(model: Any) -> Any:
    """Return the model beneath its adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _splits_itself(recipe: Recipe) -> bool:
    launch = recipe.launch
    return launch is not None and launch.strategy == "fsdp2" and on_cpu(recipe) and world_size() > 1
