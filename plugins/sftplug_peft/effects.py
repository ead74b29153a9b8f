"""Items of PEFT's options that change nothing on a model: PEFT takes a name that matches no module without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sftplug import did_you_mean

if TYPE_CHECKING:
    from torch import nn

_TRIED = (
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
)
"""Options that are lists or tables of names, of which each is to mean something."""


def without_effect(
    model: nn.Module, options: Mapping[str, Any], build: Callable[[Mapping[str, Any]], nn.Module]
) -> Iterator[str]:
    """Yield a sentence for every item of `options` without which PEFT would train the same.

    `model` is without an adapter, and `build` puts one into a copy of it. What PEFT refuses without the item has one.
    """
    names = [name for name, _ in model.named_modules() if name]
    whole = None
    for option, item, rest in _items(options):
        if option == "target_modules" and any(name == item or name.endswith(f".{item}") for name in names):
            continue  # the usual case, which needs no trial
        try:
            whole = _trained(build(options)) if whole is None else whole
            changed = _trained(build({**options, option: rest})) != whole
        except Exception:  # noqa: BLE001 - whatever PEFT says to that
            continue
        if not changed:
            ends = {name.rpartition(".")[2] for name in names}
            hint = did_you_mean(str(item), ends) if str(item) not in ends else ""
            yield f"`{option}: {item}` changes nothing on this model.{hint} Take it out."


def _items(options: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield option, item and the option without it; a single expression is an item too."""
    for option in _TRIED:
        value = options.get(option)
        if isinstance(value, Mapping):
            yield from ((option, key, {k: v for k, v in value.items() if k != key}) for key in value)
        elif isinstance(value, list | tuple | set):
            yield from ((option, item, [other for other in value if other != item] or None) for item in value)
        elif option == "exclude_modules" and value:
            yield option, value, None


def _trained(model: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what tells two adapted models apart without weights: what is trained, its shapes and scales."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    scales = {
        name: dict(m.scaling) for name, m in model.named_modules() if isinstance(getattr(m, "scaling", None), dict)
    }
    return shapes, scales
