"""The options of the ``train`` section: `trl.SFTConfig`'s own fields, read without importing it.

Importing `SFTConfig` costs six seconds (torch, accelerate, bitsandbytes); a typing mistake should be answered at
once. So names, types and choices are read from the source of the installed libraries. `SFTConfig` itself still has
the last word when the trainer is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from sftplug.errors import did_you_mean
from sftplug.library_options import LibraryOption, LibrarySource

OWNED: Mapping[str, str] = {
    "output_dir": "output",
    "max_length": "data.max_length",
    "truncation_mode": "data.too_long",
    "packing": "data.packing",
    "packing_strategy": "data.packing",
    "padding_free": "data.packing",
    "eval_packing": "data.packing",
    "dataset_text_field": "data.train[].format",
    "dataset_kwargs": "data",
    "dataset_num_proc": "data",
    "completion_only_loss": "masking",
    "assistant_only_loss": "masking",
    "chat_template_path": "chat_template",
    "model_init_kwargs": "model and quantization",
    "trust_remote_code": "model.trust_remote_code",
    "eos_token": "chat_template",
    "pad_token": "model",
    "remove_unused_columns": "data",
    "label_names": "masking",
    "do_train": "data.train",
    "do_eval": "data.eval",
    "loss_type": "masking",
    "use_liger_kernel": "masking",
    "label_smoothing_factor": "masking",
    "prediction_loss_only": "callbacks",
    "include_for_metrics": "callbacks",
    "batch_eval_metrics": "callbacks",
    "eval_do_concat_batches": "callbacks",
    "restore_callback_states_from_checkpoint": "callbacks",
}
"""Fields that sftplug sets itself, and the section of the recipe that decides them."""

_SOURCE = LibrarySource(
    "trl/trainer/sft_config.py",
    "trl/trainer/base_config.py",
    "transformers/training_args.py",
    "transformers/trainer_utils.py",
    "transformers/debug_utils.py",
)


def problems_in_train(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (option, sentence) for each option that `SFTConfig` lacks, that sftplug owns, or whose type is wrong."""
    fields = train_fields()
    for name, value in options.items():
        if name in OWNED:
            yield name, f"is set by sftplug: use the recipe's section `{OWNED[name]}`."
        elif name not in fields:
            known = fields.keys() - OWNED.keys()
            yield name, f"unknown option: trl.SFTConfig has no field of that name.{did_you_mean(name, known)}"
        elif (problem := _SOURCE.problem(fields[name], value)) is not None:
            yield name, problem


@cache
def train_fields() -> dict[str, LibraryOption]:
    """Return every field of the installed `trl.SFTConfig` by name."""
    return _SOURCE.options("SFTConfig")


def own_default(name: str) -> Any:
    """Return the default that the installed `trl.SFTConfig` gives an option; None where it is found by running it."""
    option = train_fields().get(name)
    return None if option is None else _SOURCE.default(option)


def train_schema() -> dict[str, Any]:
    """Return the JSON Schema of the ``train`` section: every field but those that sftplug owns."""
    properties = {name: _SOURCE.json_schema(option) for name, option in train_fields().items() if name not in OWNED}
    return {"type": "object", "properties": properties, "additionalProperties": False}
