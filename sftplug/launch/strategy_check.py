"""What is in force, read from the model that is about to be trained; a run that is not what was asked for stops."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sftplug.errors import TrainingError
from sftplug.util.processes import is_launched, world_size

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer

    from sftplug.recipe.model import Recipe


class StrategyCheck:
    """Says how the work is shared, once that can be seen."""

    def __init__(self, recipe: Recipe, trainer: Trainer) -> None:
        self._recipe = recipe
        self._trainer = trainer

    def check(self) -> str:
        """Return the strategy, the processes and the batch. Raises TrainingError when it is not what was asked for."""
        trainer, wanted = self._trainer, asked(self._recipe)
        found, count = strategy_of(trainer.model_wrapped, _keeps_equal(trainer)), trainer.accelerator.num_processes
        if found == "dataparallel":
            raise TrainingError(
                f"one process sees {trainer.args.n_gpu} GPUs and would share each batch between them. "
                "Set `launch: ddp` for a process each, or CUDA_VISIBLE_DEVICES=0 for one GPU."
            )
        processes = self._recipe.launch.processes if self._recipe.launch else None
        if count != world_size() or count != (processes or count) or not agrees(wanted, found, count):
            raise TrainingError(
                f"asked for {wanted} in {processes or world_size()} processes, and {found} in {count} would run. "
                "Nothing was trained."
            )
        trainer.strategy = found
        return _said(found, count, trainer)


def asked(recipe: Recipe) -> str:
    """Return the strategy that the recipe, or else the launcher, asks for."""
    if recipe.launch is not None:
        return recipe.launch.strategy
    if recipe.train.get("deepspeed") or _is_set("ACCELERATE_USE_DEEPSPEED"):
        return "zero"
    if recipe.train.get("fsdp") or _is_set("ACCELERATE_USE_FSDP"):
        return "fsdp"
    return "ddp" if is_launched() else "none"


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true")


def agrees(wanted: str, found: str, count: int) -> bool:
    """Whether `found` is what was asked for; a single process needs no DDP, and DeepSpeed and FSDP come in kinds."""
    if wanted in ("zero", "fsdp"):
        return found.startswith(wanted)
    return found == wanted or (count == 1 and {found, wanted} <= {"ddp", "none"})


def _keeps_equal(trainer: Trainer) -> bool:
    """Whether the trainer gives all processes the same trained parameters where these are whole in each."""
    return bool(getattr(trainer, "is_distributed_loading_by_transformers", False))


def strategy_of(model: nn.Module, kept_equal: bool = False) -> str:
    """Return what shares the work: ``ddp``, ``fsdp2``, ``fsdp1``, ``zero0`` … ``zero3``, ``dataparallel``, ``none``.

    For ``fsdp2`` every parameter must be split; with `kept_equal`, those that are trained may be whole.
    """
    import torch
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    if isinstance(model, torch.nn.DataParallel):
        return "dataparallel"
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return "ddp"
    # DeepSpeed's engine alone has this method.
    if stage := getattr(model, "zero_optimization_stage", None):
        return f"zero{stage()}"
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        return "fsdp1"
    whole = [parameter for parameter in model.parameters() if not isinstance(parameter, DTensor)]
    split = not whole or (kept_equal and all(parameter.requires_grad for parameter in whole))
    return "fsdp2" if split and any(isinstance(module, FSDPModule) for module in model.modules()) else "none"


def _said(found: str, count: int, trainer: Trainer) -> str:
    args = trainer.args
    each, steps = args.per_device_train_batch_size, args.gradient_accumulation_steps
    parts = [
        f"{each} rows",
        *([f"{count} processes"] if count > 1 else []),
        *([f"{steps} micro-batches"] * (steps > 1)),
    ]
    batch = f"{' x '.join(parts)} = {each * count * steps} rows a step" if len(parts) > 1 else f"{each} rows a step"
    backend = _backend()
    number = f"{count} process{'es' * (count > 1)}"
    who = number if found == "none" and count == 1 else f"{found}, {number}"
    return f"{who} on {args.device.type}{f' over {backend}' if backend else ''}; {batch}"


def _backend() -> str | Any:
    import torch.distributed

    return torch.distributed.get_backend() if torch.distributed.is_initialized() else ""
