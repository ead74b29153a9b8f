"""Options of the trainer that are obeyed elsewhere, and that nothing uses beside the recipe's other options."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftplug.training.preflight.trials import small_model
from sftplug.util.processes import is_launched

if TYPE_CHECKING:
    from trl import SFTConfig

    from sftplug.recipe.model import Recipe

_STEPS = ("eval", "save", "logging")
_WARMS_UP = {"constant": "constant_with_warmup", "reduce_lr_on_plateau": "linear", "greedy": "linear"}
"""Schedule that takes no warmup -> one that does."""
_LOW_RANK = ("galore", "apollo")
_PROBES = ("0", "1", "7", "0.5", "True", "False", "bfloat16")
_RECOMPUTING = ("gradient_checkpointing", "activation_checkpointing")


def ignored_options(recipe: Recipe, arguments: SFTConfig) -> Iterator[str]:
    """Yield a sentence for every option of `recipe` that would change nothing, as the trainer's `arguments` are."""
    train = recipe.train
    yield from _intervals(train, arguments)
    yield from _schedule(train, arguments)
    yield from _optimizer(train, arguments)
    yield from _memory(train, arguments)
    yield from _tracking(train, arguments)
    if train.get("ddp_backend") and recipe.launch is None and not is_launched():
        yield "train.ddp_backend: there is one process, which talks to no other. Leave it out, or set `launch`."


def _intervals(train: Mapping[str, Any], arguments: SFTConfig) -> Iterator[str]:
    """``eval_steps`` and its like count only where the strategy is ``steps``, which is not what is done by default."""
    for kind in _STEPS:
        strategy = getattr(arguments, f"{kind}_strategy").value
        if train.get(f"{kind}_steps") is not None and strategy != "steps":
            yield (
                f"train.{kind}_steps: is used only with `train.{kind}_strategy: steps`, and that is `{strategy}`. "
                "Set that, or leave it out."
            )
    if arguments.eval_strategy.value == "no" and train.get("eval_delay"):
        yield "train.eval_delay: nothing is evaluated: set `data.eval_fraction`, or leave it out."
    if arguments.save_strategy.value == "no":
        for name in [name for name in ("save_total_limit", "save_only_model") if train.get(name)]:
            yield f"train.{name}: no checkpoint is saved: `train.save_strategy` is `no`. Leave one of them out."


def _schedule(train: Mapping[str, Any], arguments: SFTConfig) -> Iterator[str]:
    kind = arguments.lr_scheduler_type.value
    if kind in _WARMS_UP and train.get("warmup_steps"):
        yield (
            f"train.warmup_steps: `train.lr_scheduler_type: {kind}` knows no warmup. "
            f"Set `train.lr_scheduler_type: {_WARMS_UP[kind]}`, or `train.warmup_steps: 0`."
        )
    if kind in ("constant", "constant_with_warmup") and train.get("lr_scheduler_kwargs"):
        yield f"train.lr_scheduler_kwargs: `train.lr_scheduler_type: {kind}` takes none. Leave them out."


# --- optimizer --------------------------------------------------------------------------------------------------------


def _optimizer(train: Mapping[str, Any], arguments: SFTConfig) -> Iterator[str]:
    """Make the optimizer's arguments once with another value of each option: what changes nothing is not used."""
    name = arguments.optim.value
    if train.get("optim_target_modules") is not None and not name.startswith(_LOW_RANK):
        yield f"train.optim_target_modules: is for the optimizers of GaLore and APOLLO, not for {name}. Leave it out."
    for option in ("adam_beta1", "adam_beta2", "adam_epsilon"):
        if option in train and not _uses(arguments, option, [train[option] / 2]):
            yield f"train.{option}: the optimizer {name} does not use it. Leave it out."
    pairs = [pair.split("=", 1) for pair in (arguments.optim_args or "").replace(" ", "").split(",") if pair]
    for key, *_ in pairs:
        others = [other for other in pairs if other[0] != key]
        probes = [_joined([*others, [key, probe]]) for probe in _PROBES]
        if not _uses(arguments, "optim_args", [_joined(others) or None, *probes]):
            yield f"train.optim_args: the optimizer {name} takes no `{key}`. Leave it out."


def _joined(pairs: Sequence[Sequence[str]]) -> str:
    return ",".join("=".join(pair) for pair in pairs)


def _uses(arguments: SFTConfig, option: str, others: Sequence[Any]) -> bool:
    """Whether any of the `others` as value of `option` makes another optimizer, or none."""
    own = _made(arguments, {})
    return own is None or any(_made(arguments, {option: other}) != own for other in others)


def _made(arguments: SFTConfig, changed: Mapping[str, Any]) -> str | None:
    """Return what the trainer would make as optimizer, as text; None when it cannot be made."""
    from transformers import Trainer

    tried = copy.copy(arguments)
    for name, value in changed.items():
        setattr(tried, name, value)
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(tried, small_model())
    except Exception:  # noqa: BLE001 - `failing_trials` says why
        return None
    plain = {name: value for name, value in options.items() if name not in ("params", "model", "optimizer_dict")}
    return f"{kind} {plain}"


# --- memory, trackers -------------------------------------------------------------------------------------------------


def _memory(train: Mapping[str, Any], arguments: SFTConfig) -> Iterator[str]:
    for name in _RECOMPUTING:
        if train.get(f"{name}_kwargs") and not arguments.gradient_checkpointing:
            yield f"train.{name}_kwargs: nothing is recomputed here. Set `train.{name}: true`, or leave them out."
    given = {train[name] for name in _RECOMPUTING if name in train}
    if len(given) > 1:
        yield f"train.{_RECOMPUTING[0]}: is `train.{_RECOMPUTING[1]}` by its old name, and they differ. Leave one out."
    if train.get("fsdp_config") and not train.get("fsdp"):
        yield "train.fsdp_config: is used only with `train.fsdp`. Leave it out, or use `launch: fsdp2`."
    for name in ("dataloader_pin_memory", "torch_empty_cache_steps", "activation_offloading", "ddp_timeout"):
        if arguments.device.type == "cpu" and train.get(name):
            yield f"train.{name}: is for accelerators, and this run is on a CPU. Leave it out."


def _tracking(train: Mapping[str, Any], arguments: SFTConfig) -> Iterator[str]:
    if train.get("project") and "trackio" not in arguments.report_to:
        yield "train.project: is used only with `train.report_to: trackio`. Leave it out."
    if any(option.value == "tpu_metrics_debug" for option in arguments.debug):
        yield "train.debug: tpu_metrics_debug is for TPUs. Leave it out, or say `underflow_overflow`."
