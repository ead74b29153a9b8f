"""The trainer's options: what the recipe's ``train`` section says, and what sftplug decides itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sftplug.launch import strategy_fields
from sftplug.plugin.calls import load_kwargs, train_options
from sftplug.plugin.errors import plugin_error
from sftplug.recipe.train_options import problems_in_train, train_fields
from sftplug.util.processes import is_launched

if TYPE_CHECKING:
    from trl import SFTConfig

    from sftplug.recipe.model import Recipe


def layout(recipe: Recipe) -> Literal["none", "rows", "flat", "grouped"]:
    """Return how rows become batches: what `data.packing` says, and what suits the attention if it says ``auto``."""
    if recipe.data.packing != "auto":
        return recipe.data.packing
    return "flat" if "flash" in (recipe.model.attn_implementation or "") else "grouped"


def training_arguments(recipe: Recipe) -> SFTConfig:
    """Return the recipe's ``train`` section as TRL's configuration, with what sftplug decides itself."""
    import torch
    from trl import SFTConfig

    on_cpu = not torch.accelerator.is_available() or bool(recipe.train.get("use_cpu"))
    dtype = load_kwargs(recipe.quantization).get("dtype")
    defaults = {
        "report_to": "none",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "save_strategy": "epoch",
        **_logging(recipe),
        # What fits in training fits in evaluation; the loss of held-out rows is the same for each size of batch.
        "per_device_eval_batch_size": recipe.train.get("per_device_train_batch_size", 8),
        "eval_strategy": "epoch" if recipe.data.eval or recipe.data.eval_fraction else "no",
        "bf16": not on_cpu and dtype == torch.bfloat16,
        "fp16": not on_cpu and dtype == torch.float16,
        **_sampling(recipe),
        **_for_callbacks(recipe),
    }
    owned = {
        "output_dir": recipe.output,
        # Rows come tokenized, masked and no longer than allowed; TRL must leave them as they are.
        "max_length": None,
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        # Logits of held-out rows are never gathered: what is measured of them is what callbacks make of the loss.
        "prediction_loss_only": True,
        **strategy_fields(recipe),
    }
    # Old checkpoints go when the new one is sealed, see `SftplugTrainer.keep`; one process has nothing to talk through.
    ours = (*_CHECKPOINTING, *_RECOMPUTING, "save_total_limit", *(() if is_launched() else ("ddp_backend",)))
    given = {name: value for name, value in recipe.train.items() if name not in ours}
    return SFTConfig(**{**defaults, **_checkpointing(recipe.train, on_cpu), **given, **owned})


def _logging(recipe: Recipe) -> dict[str, Any]:
    """Return how often to log, and to evaluate: a hundred times in a run of any length, and after the first step.

    Evaluations by steps take as long as before where nothing is said of them, and they tell which checkpoint is best.
    """
    held_out = bool(recipe.data.eval or recipe.data.eval_fraction)
    return {
        "logging_steps": 0.01,  # of all steps
        "logging_first_step": True,
        **({} if "logging_steps" in recipe.train else {"eval_steps": 10}),
        **({"metric_for_best_model": "eval_loss"} if held_out else {}),
    }


def _for_callbacks(recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's options that go with the callbacks."""
    found: dict[str, Any] = {}
    for callback in recipe.callbacks:
        options = train_options(callback, recipe)
        for name, problem in problems_in_train(options):
            raise plugin_error(callback, "train_options", f"must return options of `train`, but `{name}` {problem}")
        found |= options
    return found


def _sampling(recipe: Recipe) -> dict[str, Any]:
    """Draw batches of rows of similar length where nothing is packed; newer libraries have another name for it."""
    if layout(recipe) != "grouped":
        return {}
    if "train_sampling_strategy" in train_fields():
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


_CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")


_RECOMPUTING = tuple(f"{name}_kwargs" for name in _CHECKPOINTING)


def _checkpointing(train: Mapping[str, Any], on_cpu: bool) -> dict[str, Any]:
    """Recompute activations to save memory, unless the run is on a CPU; newer libraries have another name for it."""
    wanted = next((train[name] for name in _CHECKPOINTING if name in train), not on_cpu)
    how = next((train[name] for name in _RECOMPUTING if name in train), None)
    name = next(name for name in reversed(_CHECKPOINTING) if name in train_fields())
    return {name: bool(wanted), **({} if how is None else {f"{name}_kwargs": how})}
