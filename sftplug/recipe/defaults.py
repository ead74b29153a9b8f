"""What a recipe leaves open, filled in with where it comes from: what suits its adapter and the device, else TRL's own.

So every value that shapes the result stands in the resolved recipe, in the record of the run, and in all that shows
either, and a resumed run is told from one that would get other defaults today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import ValidationError

from sftplug.plugin.calls import (
    for_device,
    is_adam_like,
    optimizer_defaults,
    quantization_for,
    train_defaults,
    train_options,
    wants_constant_rate,
    warms_up,
)
from sftplug.plugin.components import Adapter, Quantization
from sftplug.plugin.errors import plugin_error
from sftplug.plugin.registry import Registry
from sftplug.recipe.model import Recipe
from sftplug.recipe.train_options import own_default, problems_in_train
from sftplug.recipe.yaml import Tree
from sftplug.util.device import Device, this_device

STATED = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "max_grad_norm",
    "seed",
)
"""Options of the trainer that a resolved recipe always states: what is trained on these rows depends on them."""
OF_TRL = "default of TRL"
_WITHOUT_WARMUP = frozenset({"constant", "reduce_lr_on_plateau", "greedy"})
"""Schedules that take no warmup."""
_ADAM = ("adam", "ademamix")
"""In the name of each optimizer whose steps have the size of Adam's."""


def of_adapter(name: str) -> str:
    """Return the origin of a value that suits the adapter of that name."""
    return f"default of adapter {name}"


def of_optimizer(name: str) -> str:
    """Return the origin of a value that suits the optimizer of that name."""
    return f"default of optimizer {name}"


def is_default(origin: str) -> bool:
    """Whether a value of this origin was left open by the recipe."""
    return origin == "default" or origin.startswith("default of ")


def assume_quantization(tree: Tree, registry: Registry) -> None:
    """Put in the quantization that the adapter's class names when the recipe names none; `settle` has the last word."""
    if tree.data.get("quantization") is not None:
        return
    adapter = tree.data.get("adapter", {"type": Recipe.model_fields["adapter"].default})
    name = adapter.get("type") if isinstance(adapter, Mapping) else None
    component = registry.classes()[Adapter].get(str(name), Adapter)
    named = component.default_quantization if issubclass(component, Adapter) else None
    tree.data["quantization"] = {"type": named or "bf16"}
    tree.origins[("quantization",)] = of_adapter(str(name))


def settle(recipe: Recipe, tree: Tree, registry: Registry, device: Device | None) -> Recipe:
    """Return `recipe` with everything that it leaves open, and note in `tree` where that comes from.

    `device` is what it is trained on; None is what this machine trains on. Raises PluginError when a component answers
    with what cannot be.
    """
    device = device or this_device(use_cpu=bool(recipe.train.get("use_cpu")))
    quantization = _settle_options(_settle_quantization(recipe, tree, registry, device), tree, device)
    return fill_train(recipe.model_copy(update={"quantization": quantization}), tree)


def _settle_quantization(recipe: Recipe, tree: Tree, registry: Registry, device: Device) -> Quantization:
    """Return the quantization that the recipe names, else the one that its adapter asks for on the device."""
    adapter = recipe.adapter
    if tree.origins.get(("quantization",)) != of_adapter(adapter.type):
        return recipe.quantization
    name = quantization_for(adapter, device)
    if adapter.default_quantization is None:
        tree.origins[("quantization",)] = f"{of_adapter(adapter.type)}: {device.explain()}"
    if name == recipe.quantization.type:
        return recipe.quantization
    tree.data["quantization"] = {"type": name}
    try:
        return cast("Quantization", registry.classes()[Quantization][name].model_validate({"type": name}))
    except (KeyError, ValidationError) as error:
        raise plugin_error(
            adapter, "quantization_for", f"names '{name}', which cannot be had by its name alone"
        ) from error


def _settle_options(quantization: Quantization, tree: Tree, device: Device) -> Quantization:
    """Return the quantization with the options set that it leaves to the device."""
    settled = for_device(quantization, device)
    before, after = (part.model_dump(mode="json", by_alias=True) for part in (quantization, settled))
    changed = {name: value for name, value in after.items() if before[name] != value}
    if changed:
        tree.data["quantization"] = {**tree.data["quantization"], **changed}
        origin = f"default of quantization {settled.type}: {device.explain()}"
        tree.origins.update({("quantization", name): origin for name in changed})
    return settled


def fill_train(recipe: Recipe, tree: Tree) -> Recipe:
    """Return `recipe` with what its ``train`` section leaves open, and note in `tree` where that comes from.

    Raises PluginError when the adapter, or a callback, means options that the trainer does not have.
    """
    found = list(_left_open(recipe))
    filled = {name: value for name, value, _ in found}
    tree.data["train"] = {**tree.data.get("train", {}), **filled}
    tree.origins.update({("train", name): origin for name, _, origin in found})
    return recipe.model_copy(update={"train": {**recipe.train, **filled}})


def _left_open(recipe: Recipe) -> Iterator[tuple[str, Any, str]]:
    """Yield (option, value, origin) of what `train` leaves open.

    By a callback, else by the optimizer, else by the adapter, else by TRL.
    """
    suited, updating, meant = suits(recipe), _suits_optimizer(recipe), _meant(recipe)
    for name in dict.fromkeys([*suited, *updating, *STATED]):
        if name in recipe.train or _is_unused(name, recipe):
            continue
        if name in meant:
            (value, origin), *others = meant[name]
            if all(other == value for other, _ in others):  # else the callbacks are refused
                yield name, value, origin
        elif recipe.optimizer is not None and name in updating:
            yield name, updating[name], of_optimizer(recipe.optimizer.type)
        elif name in suited:
            yield name, suited[name], of_adapter(recipe.adapter.type)
        elif (own := own_default(name)) is not None:
            yield name, own, OF_TRL


def _is_unused(name: str, recipe: Recipe) -> bool:
    """Whether an option is that of which another says the same."""
    if name == "num_train_epochs":
        return bool(recipe.train.get("max_steps", -1) > 0)
    return name == "lr_scheduler_type" and recipe.schedule is not None


def _suits_optimizer(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the trainer that suit the recipe's optimizer.

    Raises PluginError when the optimizer returns something else.
    """
    if recipe.optimizer is None:
        return {}
    schedule = {"lr_scheduler_type": "constant_with_warmup"} if wants_constant_rate(recipe.optimizer) else {}
    options = {**schedule, **optimizer_defaults(recipe.optimizer, recipe)}
    for name, problem in problems_in_train(options):
        text = f"must return options of `train`, but `{name}` {problem}"
        raise plugin_error(recipe.optimizer, "train_defaults", text)
    return options


def _meant(recipe: Recipe) -> dict[str, list[tuple[Any, str]]]:
    """Return option -> (value, origin) of each callback that means one."""
    found: dict[str, list[tuple[Any, str]]] = {}
    for callback in recipe.callbacks:
        for name, value in train_options(callback, recipe).items():
            found.setdefault(name, []).append((value, f"default of callback {callback.type}"))
    return found


def suits(recipe: Recipe) -> dict[str, Any]:
    """Return the options of the trainer that suit the recipe's adapter, beside what the recipe says itself.

    Raises PluginError when the adapter returns something else.
    """
    options = train_defaults(recipe.adapter, recipe)
    for name, problem in problems_in_train(options):
        raise plugin_error(recipe.adapter, "train_defaults", f"must return options of `train`, but `{name}` {problem}")
    return {name: value for name, value in options.items() if _goes_with(name, recipe)}


def _goes_with(name: str, recipe: Recipe) -> bool:
    """Whether what suits the adapter still does beside what the recipe says."""
    train = recipe.train
    if name == "learning_rate":
        if recipe.optimizer is not None:
            return is_adam_like(recipe.optimizer)
        optimizer = str(train.get("optim", "adam"))
        return any(sort in optimizer for sort in _ADAM)
    if name == "warmup_steps":
        if recipe.schedule is not None:
            return warms_up(recipe.schedule)
        return "warmup_ratio" not in train and train.get("lr_scheduler_type") not in _WITHOUT_WARMUP
    return True
