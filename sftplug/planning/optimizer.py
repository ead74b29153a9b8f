"""How large the state of a recipe's optimizer is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sftplug.libraries.optimizer_state import KNOWN, Trained, state_bytes
from sftplug.planning.result import Range
from sftplug.plugin.calls import make_optimizer, optimizer_state
from sftplug.types.trained_parameters import TrainedParameter, TrainedParameters

if TYPE_CHECKING:
    from sftplug.planning.settings import Settings
    from sftplug.plugin.components import Optimizer

__all__ = ["KNOWN", "chosen_bytes", "optimizer_bytes", "sizes", "state_of"]

_UNKNOWN = 16
"""Bytes a number that no optimizer of the known libraries goes beyond: three and a copy of the weight, in 32 bits."""


def state_of(settings: Settings, trained: Iterable[Trained]) -> tuple[Range, bool]:
    """Return the bytes of the optimizer's state after its first update, and whether they are known."""
    tensors = list(trained)
    if settings.chosen is None:
        return optimizer_bytes(settings.optimizer, tensors)
    return _range(chosen_bytes(settings.chosen, tensors), tensors)


def optimizer_bytes(name: str, trained: Iterable[Trained]) -> tuple[Range, bool]:
    """Return the same of one of transformers' ``optim``.

    Of one that is not in the table no more is said than the widest range.
    """
    tensors = list(trained)
    return _range(state_bytes(name, tensors), tensors)


def _range(size: int | None, tensors: list[Trained]) -> tuple[Range, bool]:
    if size is None:
        return Range(0, _UNKNOWN * sum(tensor.count for tensor in tensors)), False
    return Range(size, size), True


def chosen_bytes(component: Optimizer, tensors: list[Trained]) -> int | None:
    """Return the bytes of a component's state: as it says itself, else as counted; None where it cannot be counted."""
    trained = _without_numbers(tensors)
    said = optimizer_state(component, trained)
    return counted(component, trained) if said is None else said


def counted(component: Optimizer, trained: TrainedParameters) -> int | None:
    """Return the bytes of the state after an update; None for an optimizer that fails without numbers."""
    import torch

    for parameter in trained.parameters:
        parameter.value.grad = torch.empty_like(parameter.value)
    try:
        made = make_optimizer(component, trained, 1e-3)
        if callable(train := getattr(made, "train", None)):
            train()
        made.step()
    except Exception:  # noqa: BLE001 - with numbers it may work all the same
        return None
    return sum(sizes(dict(made.state)).values())


def sizes(value: Any) -> dict[int, int]:
    """Return the storage -> its bytes of each tensor in a state; `value` is a tensor, or holds some."""
    import torch

    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        # By storage, for two tensors of a state may look into one.
        return {storage._cdata: storage.nbytes()}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {key: size for item in items for key, size in sizes(item).items()}


def _without_numbers(tensors: list[Trained]) -> TrainedParameters:
    """Return parameters of these shapes and types on the meta device."""
    import torch
    from torch import nn

    types = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16, 1: torch.float8_e4m3fn}
    model, found = nn.Module(), []
    for number, tensor in enumerate(tensors):
        dtype = types.get(tensor.bytes // max(tensor.count, 1), torch.float32)
        value = nn.Parameter(torch.empty(tensor.shape, dtype=dtype, device="meta"))
        model.register_parameter(f"parameter_{number}", value)
        found.append(TrainedParameter(f"parameter_{number}", value, decays=True, table=tensor.embedding))
    return TrainedParameters(tuple(found), 0.0, model)
