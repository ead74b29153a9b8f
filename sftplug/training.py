"""Supervised fine-tuning, from a recipe and prepared rows to a saved model; read `train` from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from sftplug.answers import load_kwargs, peft_config, trainer_callback
from sftplug.errors import PluginError, TrainingError
from sftplug.models import load_model
from sftplug.probe import check_isolation
from sftplug.quiet import quiet_libraries
from sftplug.recipe.train_options import train_fields
from sftplug.size import Size, measure

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import SFTConfig

    from sftplug.data.prepare import Prepared
    from sftplug.recipe import LoadedRecipe, Recipe
    from sftplug.trainer import SftplugTrainer


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run."""

    output: Path
    """Folder with the model or adapter, the tokenizer, and the record of the run."""
    log: tuple[Mapping[str, Any], ...]
    """What the trainer logged, in order: ``step``, ``loss``, ``learning_rate``, ``eval_loss`` …"""
    loss: float
    """Mean training loss."""
    size: Size
    seconds: float
    """Time in the training loop."""
    tokens: int
    """Tokens that went through the model in training, padding left out."""


def train(loaded: LoadedRecipe, prepared: Prepared) -> RunResult:
    """Train as the recipe says, and save the result to its output folder.

    Raises what the libraries raise and TrainingError, after plugins have been told with ``sftplug_run_failed``.
    """
    try:
        # The base model, its weights in the numbers that the quantization says; the adapter says what is trained.
        quiet_libraries()
        model = load_model(loaded.recipe)
        trainer = make_trainer(loaded.recipe, model, prepared)
        if layout(loaded.recipe) in ("rows", "flat"):
            check_isolation(trainer.model)
        loaded.call("sftplug_trainer_created", trainer=trainer)
        # The loop: batches of rows, the loss over their trained tokens, an update of the trained parameters.
        started = time.monotonic()
        outcome = trainer.train()
        seconds = time.monotonic() - started
        # What inference needs: weights, tokenizer with the chat template, the tokens that end a turn.
        save(loaded, trainer, prepared)
        result = RunResult(
            output=Path(loaded.recipe.output),
            log=tuple(trainer.state.log_history),
            loss=float(outcome.training_loss),
            size=measure(trainer.model),
            seconds=seconds,
            tokens=int(trainer._total_train_tokens),
        )
    except BaseException as error:
        _tell_failure(loaded, error)
        raise
    _tell_result(loaded, result)
    return result


def _tell_failure(loaded: LoadedRecipe, error: BaseException) -> None:
    """Tell the plugins in use that the run failed; one that fails itself must not hide what went wrong first."""
    try:
        loaded.call("sftplug_run_failed", error=error)
    except PluginError as another:
        error.add_note(str(another))


def _tell_result(loaded: LoadedRecipe, result: RunResult) -> None:
    """Tell the plugins in use that the run is over; if one of them fails, the result is there all the same."""
    try:
        loaded.call("sftplug_run_finished", result=result)
    except PluginError as error:
        raise TrainingError(f"{error}\nThe run itself is over: its result is saved in {result.output}.") from error


def make_trainer(recipe: Recipe, model: PreTrainedModel, prepared: Prepared) -> SftplugTrainer:
    """Return the trainer for `model` with the recipe's adapter, callbacks and rows."""
    from transformers import PrinterCallback

    from sftplug.trainer import Collator, Guard, SftplugTrainer

    arguments = training_arguments(recipe)
    adapter = peft_config(recipe.adapter)
    pad, multiple = int(prepared.tokenizer.pad_token_id), int(arguments.pad_to_multiple_of or 1)
    trainer = SftplugTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.train,
        eval_dataset=prepared.eval,
        processing_class=prepared.tokenizer,
        data_collator=Collator(pad, multiple, flat=layout(recipe) == "flat"),
        peft_config=adapter,
        callbacks=[Guard(), *map(trainer_callback, recipe.callbacks)],
    )
    trainer.remove_callback(PrinterCallback)  # prints dictionaries; what is shown is the plugins' business
    if adapter is not None:
        _keep_adapter_in_fp32(trainer.model)
    return trainer


def _keep_adapter_in_fp32(model: PreTrainedModel) -> None:
    """TRL casts the adapter of a quantized model to bf16, PEFT loads it back as fp32: a resumed run would differ."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32)


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
        "eval_strategy": "epoch" if recipe.data.eval or recipe.data.eval_fraction else "no",
        "bf16": not on_cpu and dtype == torch.bfloat16,
        "fp16": not on_cpu and dtype == torch.float16,
        **_sampling(recipe),
    }
    owned = {
        "output_dir": recipe.output,
        # Rows come tokenized, masked and no longer than allowed; TRL must leave them as they are.
        "max_length": None,
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
    }
    given = {name: value for name, value in recipe.train.items() if name not in _CHECKPOINTING}
    return SFTConfig(**{**defaults, **_checkpointing(recipe.train, on_cpu), **given, **owned})


def _sampling(recipe: Recipe) -> dict[str, Any]:
    """Draw batches of rows of similar length where nothing is packed; newer libraries have another name for it."""
    if layout(recipe) != "grouped":
        return {}
    if "train_sampling_strategy" in train_fields():
        return {"train_sampling_strategy": "group_by_length"}
    return {"group_by_length": True}


_CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")


def _checkpointing(train: Mapping[str, Any], on_cpu: bool) -> dict[str, bool]:
    """Recompute activations to save memory, unless the run is on a CPU; newer libraries have another name for it."""
    wanted = next((train[name] for name in _CHECKPOINTING if name in train), not on_cpu)
    return {next(name for name in reversed(_CHECKPOINTING) if name in train_fields()): bool(wanted)}


# --- save -------------------------------------------------------------------------------------------------------------


def save(loaded: LoadedRecipe, trainer: SftplugTrainer, prepared: Prepared) -> None:
    """Write the model or adapter, what inference needs beside it, and the record of the run."""
    output = Path(loaded.recipe.output)
    trainer.save_model(str(output))
    prepared.tokenizer.save_pretrained(str(output))
    _generation_config(trainer.model, prepared).save_pretrained(str(output))
    _write(output / "recipe.yaml", yaml.safe_dump(loaded.recipe.model_dump(mode="json"), sort_keys=False))
    _write(output / "plugins.json", json.dumps(loaded.provenance(), indent=2))
    _write(output / "ledger.json", json.dumps(prepared.ledger.to_dict(), indent=2, ensure_ascii=False))
    _write(output / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history))


def _generation_config(model: PreTrainedModel, prepared: Prepared) -> Any:
    """Return the generation configuration, with every stop that was trained among its end tokens."""
    tokenizer, config = prepared.tokenizer, model.generation_config
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    stops = [stop for stop in prepared.ledger.stop_ids if stop in special]
    config.eos_token_id = list(dict.fromkeys([*stops, *(end for end in known if end is not None)])) or None
    config.pad_token_id = tokenizer.pad_token_id
    return config


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
