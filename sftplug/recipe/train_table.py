"""Every field of `trl.SFTConfig`, and what sftplug does with it: it is obeyed, or refused with the reason.

TRL's trainer stands on transformers' and has options for every use of both. Some mean nothing here, because rows come
tokenized and masked; some would undo what sftplug promises. To take one and not obey it would be a silent error in
someone's experiment. A test holds this table against the installed libraries; `docs/train-options.md` is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is not for recipes."""

    reason: str
    """What it would do here, or who decides it: goes on the sentence ``train.packing …``."""
    instead: str = "Leave it out."
    """What to do; following it literally helps."""
    values: tuple[Any, ...] = ()
    """Only these values are refused; all of them if there are none."""

    def __str__(self) -> str:
        return f"{self.reason} {self.instead}"

    def of(self, value: Any) -> bool:
        """Whether this value of the field is refused."""
        return not self.values or any(value == known and isinstance(value, type(known)) for known in self.values)


SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "How long, how many rows a step": (
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "train_sampling_strategy",
        "dataloader_drop_last",
        "pad_to_multiple_of",
        "seed",
        "data_seed",
        "full_determinism",
    ),
    "Rate, schedule, optimizer": (
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "warmup_steps",
        "optim",
        "optim_args",
        "optim_target_modules",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "neftune_noise_alpha",
        "router_aux_loss_coef",
        "average_tokens_across_devices",
    ),
    "Numbers, memory, speed": (
        "bf16",
        "fp16",
        "tf32",
        "use_cpu",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "activation_checkpointing",
        "activation_checkpointing_kwargs",
        "activation_offloading",
        "torch_compile",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
        "dataloader_in_order",
    ),
    "What is measured, and when": (
        "eval_strategy",
        "eval_steps",
        "eval_delay",
        "eval_on_start",
        "per_device_eval_batch_size",
        "logging_strategy",
        "logging_steps",
        "logging_first_step",
        "report_to",
        "run_name",
        "project",
        "debug",
    ),
    "Checkpoints": (
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
    ),
    "Several processes": (
        "ddp_find_unused_parameters",
        "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers",
        "ddp_static_graph",
        "ddp_backend",
        "ddp_timeout",
        "fsdp",
        "fsdp_config",
        "deepspeed",
    ),
}
"""Heading -> the fields that are obeyed."""


def _section(name: str) -> Refusal:
    return Refusal(f"is set by sftplug: use the recipe's section `{name}`.", "")


_PUSH = "`sftplug push RUN OWNER/NAME --private` publishes what a run leaves, and nothing of its record."
_LOSS = "is not used: the recipe's section `loss` says what a token costs."
_REPLIES = (
    "no logits of held-out rows are kept: their loss is split by the callback `loss_by`, and replies are measured"
)

REFUSED: Mapping[str, Refusal] = {
    # --- another section says it ---
    "output_dir": _section("output"),
    "max_length": _section("data.max_length"),
    "truncation_mode": _section("data.too_long"),
    "packing": _section("data.packing"),
    "packing_strategy": _section("data.packing"),
    "padding_free": _section("data.packing"),
    "eval_packing": _section("data.packing"),
    "dataset_text_field": _section("data.train[].format"),
    "completion_only_loss": _section("masking"),
    "assistant_only_loss": _section("masking"),
    "label_names": _section("masking"),
    "chat_template_path": _section("chat_template"),
    "eos_token": _section("chat_template"),
    "trust_remote_code": _section("model.trust_remote_code"),
    "model_init_kwargs": Refusal(
        "is set by sftplug: the recipe's sections `model` and `quantization` say how weights are loaded.", ""
    ),
    "do_train": Refusal("is set by sftplug: rows in `data.train` are trained on."),
    "do_eval": Refusal(
        "is set by sftplug: the model is evaluated when `data.eval` or `data.eval_fraction` hold rows out."
    ),
    "do_predict": Refusal("has no effect: nothing is predicted after training. `evaluation.metrics` measures replies."),
    # --- the rows are sftplug's ---
    "dataset_kwargs": Refusal(
        "is set by sftplug: rows come tokenized and masked, and TRL must leave them as they are."
    ),
    "dataset_num_proc": Refusal("has no effect: rows are prepared by sftplug, in batches on all cores."),
    "remove_unused_columns": Refusal(
        "is set by sftplug: the columns of the prepared rows are those that training needs."
    ),
    "length_column_name": Refusal("has no effect: how long the prepared rows are is known."),
    "shuffle_dataset": Refusal(
        "has no effect: TRL shuffles rows when it prepares them, and these are prepared already.",
        "Leave it out: rows are drawn in another order each epoch, unless `train.train_sampling_strategy` is "
        "`sequential`.",
    ),
    "pad_token": Refusal("has no effect: padding is told from text by its position, so any token serves."),
    # --- the loss is sftplug's ---
    "label_smoothing_factor": Refusal(_LOSS, "`loss: {type: cross_entropy, label_smoothing: 0.1}` does it."),
    "loss_type": Refusal(
        _LOSS,
        "`loss: cross_entropy` is TRL's `nll` and `chunked_nll`, and `loss: dft` its `dft`; a plugin can offer others.",
    ),
    "use_liger_kernel": Refusal(
        "replaces layers of the model when training starts, after it is proven that packed rows do not see each other, "
        "and TRL is about to remove it. The package sftplug-liger brings the kernels as `patches: liger`, before "
        "that proof, and compares the model with a plain one."
    ),
    "liger_kernel_config": Refusal("has no effect: it is for `use_liger_kernel`, which is refused."),
    "use_cache": Refusal("has no effect: training keeps no keys and values of earlier tokens."),
    "average_tokens_across_devices": Refusal(
        "must be true: the loss of a step is the mean over the tokens of all processes, whatever their number.",
        values=(False,),
    ),
    "logging_nan_inf_filter": Refusal("has no effect: a run whose loss is not finite is stopped, not smoothed over."),
    "auto_find_batch_size": Refusal(
        "starts the loop again with a smaller batch when memory runs out, on weights that are trained already.",
        "Leave it out: `sftplug plan` tells what fits; `per_device_train_batch_size` and `gradient_accumulation_steps` "
        "divide the same rows a step otherwise.",
    ),
    # --- what is measured of held-out rows ---
    "prediction_loss_only": Refusal(f"is set by sftplug: {_REPLIES} by `evaluation.metrics`."),
    "include_for_metrics": Refusal(f"has no effect: {_REPLIES} by `evaluation.metrics`."),
    "batch_eval_metrics": Refusal(f"has no effect: {_REPLIES} by `evaluation.metrics`."),
    "eval_do_concat_batches": Refusal(f"has no effect: {_REPLIES} by `evaluation.metrics`."),
    "eval_use_gather_object": Refusal(f"has no effect: {_REPLIES} by `evaluation.metrics`."),
    "eval_accumulation_steps": Refusal(f"has no effect: {_REPLIES} by `evaluation.metrics`."),
    "bf16_full_eval": Refusal("has no effect: transformers uses it in evaluations outside of training only."),
    "fp16_full_eval": Refusal("has no effect: transformers uses it in evaluations outside of training only."),
    "include_num_input_tokens_seen": Refusal(
        "is not needed: every line of the log holds `num_tokens`, the tokens trained on so far without padding."
    ),
    "skip_memory_metrics": Refusal(
        "has no effect: every line of `metrics.jsonl` holds `peak_bytes`, the most memory that was in use."
    ),
    # --- a resumed run ---
    "resume_from_checkpoint": Refusal(
        "has no effect: nothing reads it.",
        "Leave it out: the same `sftplug train` resumes from the last whole checkpoint of an unfinished run.",
    ),
    "ignore_data_skip": Refusal("would train a resumed run with the rows that it has had, and not with the others."),
    "restore_callback_states_from_checkpoint": Refusal(
        "is not needed: callbacks are given back their state whenever a run is resumed."
    ),
    "enable_jit_checkpoint": Refusal("is not needed: a signal saves a checkpoint at the end of the step."),
    "save_on_each_node": Refusal(
        "would write checkpoints where the other nodes do not find them: the main process writes the run's folder, and "
        "all read it.",
        "Leave it out, and let `output` be a folder that all nodes share.",
    ),
    "dataloader_in_order": Refusal("must be true: a resumed run counts on the order of its batches.", values=(False,)),
    "train_sampling_strategy": Refusal(
        "batch_rebalance makes batches of unequal numbers of rows, which a resumed run cannot find again.",
        "Leave it out: rows of similar length share a batch.",
        values=("batch_rebalance",),
    ),
    "accelerator_config": Refusal(
        "would change how batches are cut and drawn, on which a resumed run counts, and the loss of several processes."
    ),
    "parallelism_config": Refusal(
        "is an object of Python, which no recipe can hold.",
        "Leave it out: `accelerate launch --config_file FILE -m sftplug train RECIPE` takes it from FILE.",
    ),
    "local_rank": Refusal("is what a launcher tells each process.", "Leave it out, and see the section `launch`."),
    # --- what is printed ---
    "disable_tqdm": Refusal(
        "is set by sftplug: the plugin `console` shows the progress.",
        "Leave it out: `--no-plugin console` keeps it quiet, and `show=False` in Python.",
    ),
    "log_level": Refusal("is set by sftplug.", "Leave it out: `sftplug train -v` lets the libraries log."),
    "log_level_replica": Refusal("is set by sftplug.", "Leave it out: `sftplug train -v` lets the libraries log."),
    "log_on_each_node": Refusal("has no effect: the main process alone tells of the run."),
    # --- what is sent ---
    "push_to_hub": Refusal(
        "would publish the record of the run with every checkpoint: the recipe, its rows' origins, the name of this "
        "machine and the trainer's arguments, with the Hub token in them.",
        f"Leave it out: {_PUSH}",
    ),
    "hub_model_id": Refusal("has no effect without `push_to_hub`, which is refused.", f"Leave it out: {_PUSH}"),
    "hub_strategy": Refusal("has no effect without `push_to_hub`, which is refused.", f"Leave it out: {_PUSH}"),
    "hub_private_repo": Refusal("has no effect without `push_to_hub`, which is refused.", f"Leave it out: {_PUSH}"),
    "hub_always_push": Refusal("has no effect without `push_to_hub`, which is refused.", f"Leave it out: {_PUSH}"),
    "hub_revision": Refusal("has no effect without `push_to_hub`, which is refused.", f"Leave it out: {_PUSH}"),
    "hub_token": Refusal(
        "is a secret, and a recipe is shown, kept and passed on.",
        "Take it out, and make a new token if the file was ever shared: models, datasets and `sftplug push` use the "
        "token of `hf auth login`, or of the environment variable HF_TOKEN.",
    ),
    "trackio_space_id": Refusal(
        "would send the metrics, with every option and path of the run, to a Space that is public.",
        "Leave it out: `report_to: trackio` keeps them on this machine.",
    ),
    "trackio_bucket_id": Refusal(
        "would send the metrics, with every option and path of the run, to the Hub.",
        "Leave it out: `report_to: trackio` keeps them on this machine.",
    ),
    "trackio_static_space_id": Refusal(
        "would send the metrics, with every option and path of the run, to a Space that is public.",
        "Leave it out: `report_to: trackio` keeps them on this machine.",
    ),
    # --- what older versions had ---
    "warmup_ratio": Refusal(
        "is an old option of the trainer.", "`train.warmup_steps` takes a share as well: `0.03` is 3% of the steps."
    ),
    "evaluation_strategy": Refusal("is an old option of the trainer.", "`train.eval_strategy` is its name today."),
    "max_seq_length": _section("data.max_length"),
    "dataset_batch_size": Refusal("is an old option of the trainer: rows are prepared by sftplug."),
    "group_by_length": Refusal(
        "is an old option of the trainer.", "`train.train_sampling_strategy: group_by_length` is what it was."
    ),
    "overwrite_output_dir": Refusal(
        "is an old option of the trainer.", "Leave it out: `sftplug train --overwrite` deletes a run that is there."
    ),
    "logging_dir": Refusal(
        "is an old option of the trainer.",
        "Leave it out: TensorBoard's events go to `tensorboard` in the run's folder.",
    ),
    "no_cuda": Refusal("is an old option of the trainer.", "`train.use_cpu` is its name today."),
    "save_safetensors": Refusal("is an old option of the trainer: weights are always safetensors."),
    "push_to_hub_token": Refusal("is an old option of the trainer.", f"Leave it out: {_PUSH}"),
    "include_tokens_per_second": Refusal(
        "is an old option of the trainer: tokens and seconds stand in the record of the run."
    ),
    "jit_mode_eval": Refusal("is an old option of the trainer."),
    "half_precision_backend": Refusal("is an old option of the trainer."),
    "past_index": Refusal("is an old option of the trainer."),
    "tokenizer": _section("model"),
}
"""Field -> why recipes cannot set it."""


def is_known(name: str) -> bool:
    """Whether sftplug has been told what becomes of the field; a newer library may have others."""
    return name in REFUSED or any(name in names for names in SUPPORTED.values())
