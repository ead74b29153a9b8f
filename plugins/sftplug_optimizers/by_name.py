"""Offer every optimizer that transformers has a name for, with the options that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Literal

from pydantic import create_model

from sftplug import Deferred, LibrarySource
from sftplug_optimizers import families
from sftplug_optimizers.library import LibraryOptimizer

NAMES = LibrarySource("transformers/training_args.py")


def optimizers() -> list[Deferred]:
    """Return an offer for each of transformers' names."""
    names = sorted(NAMES.members("OptimizerNames").values())
    return [Deferred(name, partial(make_component, name), "transformers") for name in names]


@cache
def make_component(name: str) -> type[LibraryOptimizer]:
    """Return the component class of one optimizer."""
    given: Any = name
    family = family_of(name)
    title = "".join(part.capitalize() for part in name.split("_"))
    fields: dict[str, Any] = {"type": (Literal[given], given)}
    about = f"`{name}` of transformers: {family.about}"
    component = create_model(title, __base__=family, __module__=__name__, __doc__=about, **fields)
    component.remake = partial(_remade, name)
    return component


def family_of(name: str) -> type[LibraryOptimizer]:
    """Return the class with the options of the optimizer of that name; without any for one that is new."""
    # The order of the table counts: `adamw_torch_8bit` is TorchAo's, though it begins with `adamw_` as well.
    return next((family for start, family in _FAMILIES.items() if name.startswith(start)), LibraryOptimizer)


def _remade(name: str, options: dict[str, Any]) -> LibraryOptimizer:
    return make_component(name)(**options)


_FAMILIES: Mapping[str, type[LibraryOptimizer]] = {
    "adamw_anyprecision": families.AnyPrecision,
    "adamw_torch_4bit": families.TorchAo,
    "adamw_torch_8bit": families.TorchAo,
    "adamw_bnb": families.BlockwiseAdam,
    "adamw_8bit": families.BlockwiseAdam,
    "paged_adamw": families.BlockwiseAdam,
    "adamw_": families.Adam,
    "adafactor": families.Adafactor,
    "ademamix": families.AdEMAMix,
    "paged_ademamix": families.AdEMAMix,
    "sgd": families.Sgd,
    "adagrad": families.Adagrad,
    "lion": families.Lion,
    "paged_lion": families.Lion,
    "rmsprop_bnb": families.BlockwiseRmsProp,
    "rmsprop": families.RmsProp,
    "galore": families.GaLore,
    "apollo": families.Apollo,
    "lomo": families.InBackward,
    "adalomo": families.InBackward,
    "grokadamw": families.GrokAdamW,
    "schedule_free_adamw": families.ScheduleFreeAdam,
    "schedule_free_radam": families.ScheduleFreeAdam,
    "schedule_free_sgd": families.ScheduleFreeSgd,
    "stable_adamw": families.StableAdamW,
}
"""How a name begins -> the family; the first that fits."""
