"""Calls of what updates the weights: optimizers and schedules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from sftplug.errors import SftplugError
from sftplug.plugin.calls.check import checked
from sftplug.plugin.errors import failed, plugin_error, plugin_errors

if TYPE_CHECKING:
    from torch import optim

    from sftplug.plugin.components import Component, Optimizer, Schedule
    from sftplug.recipe.model import Recipe
    from sftplug.types.trained_parameters import Horizon, TrainedParameters

STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
"""What an optimizer may name in `strategies`."""


def is_adam_like(optimizer: Optimizer) -> bool:
    """Whether updates have the size of Adam's. Raises PluginError for anything but True and False."""
    return _flag(optimizer, "adam_like")


def takes_weight_decay(optimizer: Optimizer) -> bool:
    """Whether weight decay is obeyed. Raises PluginError for anything but True and False."""
    return _flag(optimizer, "decays")


def is_resumable(optimizer: Optimizer) -> bool:
    """Whether its state can be kept in a checkpoint. Raises PluginError for anything but True and False."""
    return _flag(optimizer, "resumable")


def wants_constant_rate(optimizer: Optimizer) -> bool:
    """Whether it is made for a rate that does not fall. Raises PluginError for anything but True and False."""
    return _flag(optimizer, "constant_rate")


def warms_up(schedule: Schedule) -> bool:
    """Whether a warmup is obeyed. Raises PluginError for anything but True and False."""
    return _flag(schedule, "warms_up")


def _flag(component: Component, name: str) -> bool:
    with plugin_errors(component, name):
        answer: object = getattr(component, name)
    return bool(checked(component, name, answer, bool, "True or False"))


def strategies(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the launch strategies that it works with. Raises PluginError for anything that is none."""
    with plugin_errors(optimizer, "strategies"):
        answer: object = optimizer.strategies
    named: tuple[str, ...] = checked(optimizer, "strategies", answer, tuple, "a tuple of names")
    for name in named:
        if name not in STRATEGIES:
            raise plugin_error(optimizer, "strategies", f"must name some of {', '.join(STRATEGIES)}, not {name!r}")
    return named


def optimizer_defaults(optimizer: Optimizer, recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's options that suit an optimizer. Raises PluginError for anything but a dict."""
    with plugin_errors(optimizer, "train_defaults"):
        answer: object = optimizer.train_defaults(recipe)
    options: dict[str, Any] = checked(optimizer, "train_defaults", answer, dict, "a dict of options of `train`")
    return options


def make_optimizer(component: Optimizer, trained: TrainedParameters, learning_rate: float) -> optim.Optimizer:
    """Return torch's optimizer. Raises PluginError for one that does not hold each parameter once, at a rate."""
    import torch

    with plugin_errors(component, "optimizer"):
        answer: object = component.optimizer(trained, learning_rate)
    made: optim.Optimizer = checked(component, "optimizer", answer, torch.optim.Optimizer, "a torch.optim.Optimizer")
    # By identity: tensors are compared number by number, and two of zeros are equal.
    held = Counter(id(value) for value in chain.from_iterable(group["params"] for group in made.param_groups))
    for parameter in trained.parameters:
        if (count := held[id(parameter.value)]) != 1:
            said = f"must hold every trained parameter once, and holds {parameter.name} {count} times"
            raise plugin_error(component, "optimizer", said)
    if held.total() > len(trained.parameters):
        said = f"must hold the {len(trained.parameters)} trained parameters and no others, and holds {held.total()}"
        raise plugin_error(component, "optimizer", said)
    if any("lr" not in group for group in made.param_groups):
        raise plugin_error(component, "optimizer", "must give every group of parameters its rate as `lr`")
    return made


@contextmanager
def blaming(component: Optimizer | None, made: Callable[[], optim.Optimizer | None]) -> Iterator[None]:
    """Turn what is raised inside of the optimizer that a component has `made` into a PluginError with blame.

    The trainer calls it in the midst of all else that it does: what was raised elsewhere is raised as it is.
    """
    try:
        yield
    except SftplugError:
        raise
    except Exception as error:
        if component is None or not _cut_to(error, made()):
            raise
        raise failed(component, "optimizer", error) from error


def _cut_to(error: Exception, made: object) -> bool:
    """Leave in an error's traceback what happened inside of a method of `made`; False where it was in none."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        # Torch wraps `step`, to count its calls: its own wrapper is not the method.
        if made is not None and frame.f_locals.get("self") is made and frame.f_code.co_name != "wrapper":
            error.__traceback__ = trace
            return True
        trace = trace.tb_next
    return False


def optimizer_state(component: Optimizer, trained: TrainedParameters) -> int | None:
    """Return the bytes of its state, None where it does not say. Raises PluginError for anything else."""
    with plugin_errors(component, "state_bytes"):
        answer: object = component.state_bytes(trained)
    if answer is None:
        return None
    if isinstance(answer, bool) or not isinstance(answer, int) or answer < 0:
        raise plugin_error(component, "state_bytes", f"must return a number of bytes, or None, not {answer!r}")
    return answer


def multiplier(component: Schedule, step: int, horizon: Horizon) -> float:
    """Return what the rate of an update is multiplied by. Raises PluginError for what no rate can be."""
    with plugin_errors(component, "multiplier"):
        answer: object = component.multiplier(step, horizon)
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not 0 <= answer < math.inf:
        said = f"must return a finite number, 0 or more, not {answer!r}, for step {step} of {horizon.steps}"
        raise plugin_error(component, "multiplier", said)
    return float(answer)
