"""What does not go together with the optimizer and the schedule that a recipe names."""

from __future__ import annotations

from collections.abc import Iterator

from sftplug.plugin.calls import is_resumable, strategies, takes_weight_decay, wants_constant_rate, warms_up
from sftplug.recipe.model import Recipe

_CONSTANT = ("constant", "constant_with_warmup")
"""Schedules in which no rate falls."""


def check_optimizer(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (path, sentence) for what the recipe says beside its optimizer, and would not be obeyed."""
    optimizer, train = recipe.optimizer, recipe.train
    if optimizer is None:
        return
    for name in [name for name in Recipe.stands_in_for["optimizer"] if name in train]:
        yield (
            f"train.{name}",
            f"is not used beside `optimizer: {optimizer.type}`, whose own options say it. Leave out one of the two.",
        )
    if train.get("weight_decay") and not takes_weight_decay(optimizer):
        yield "train.weight_decay", f"optimizer '{optimizer.type}' has no weight decay. Leave it out."
    saves = train.get("save_strategy", "epoch") != "no" and not train.get("save_only_model")
    if saves and not is_resumable(optimizer):
        yield (
            "optimizer",
            f"'{optimizer.type}' keeps state that no checkpoint holds, so no run could resume from one. Choose "
            "another, or set `train.save_only_model: true`.",
        )
    yield from _check_rate(recipe)
    yield from _check_strategy(recipe)


def _check_rate(recipe: Recipe) -> Iterator[tuple[str, str]]:
    assert recipe.optimizer is not None
    if not wants_constant_rate(recipe.optimizer):
        return
    where, name = "train.lr_scheduler_type", recipe.train.get("lr_scheduler_type", _CONSTANT[-1])
    if recipe.schedule is not None:
        where, name = "schedule", recipe.schedule.type
    if name not in _CONSTANT:
        yield (
            where,
            f"optimizer '{recipe.optimizer.type}' is made for a rate that does not fall, and that of {name} does. Set "
            f"`{where}: {_CONSTANT[-1]}`.",
        )


def _check_strategy(recipe: Recipe) -> Iterator[tuple[str, str]]:
    assert recipe.optimizer is not None
    name, known = recipe.optimizer.type, strategies(recipe.optimizer)
    asked = recipe.launch.strategy if recipe.launch is not None else None
    if asked is not None and asked not in known:
        yield (
            "optimizer",
            f"'{name}' does not work on the parameters as `launch: {asked}` shares them out. Choose `launch: "
            f"{known[0] if known else 'null'}`.",
        )
    if recipe.train.get("deepspeed"):
        yield (
            "train.deepspeed",
            f"may bring an optimizer of its own, and then `optimizer: {name}` would not be used. Leave out one of "
            "the two.",
        )


def check_schedule(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (path, sentence) for what the recipe says beside its schedule, and would not be obeyed."""
    schedule, train = recipe.schedule, recipe.train
    if schedule is None:
        return
    for name in [name for name in Recipe.stands_in_for["schedule"] if name in train]:
        yield (
            f"train.{name}",
            f"is not used beside `schedule: {schedule.type}`, whose own options say it. Leave out one of the two.",
        )
    if train.get("warmup_steps") and not warms_up(schedule):
        yield "train.warmup_steps", f"schedule '{schedule.type}' knows no warmup. Leave it out, or set it to 0."
    if train.get("deepspeed"):
        yield (
            "train.deepspeed",
            f"may bring a schedule of its own, and then `schedule: {schedule.type}` would not be used. Leave out one "
            "of the two.",
        )
