"""How much of a model is trained, and how much memory its weights take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a model is trained, and how much memory its weights take."""

    trainable: int
    """Parameters that are trained."""
    total: int
    """Parameters in all; a 4-bit weight counts as one."""
    bytes: int
    """Bytes of all weights as they are held."""
    modules: dict[str, int]
    """Name of a module whose parameters are trained -> how many there are of it."""


def measure(model: nn.Module) -> Size:
    """Return the size of a model in memory, its trained modules by the last part of their names."""
    trainable = total = held = 0
    trained: set[str] = set()
    owners = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        count = _parameters_in(parameter)
        total += count
        held += parameter.numel() * parameter.element_size()
        if parameter.requires_grad:
            trainable += count
            trained.add(_module_of(owners[id(parameter)]))
    return Size(trainable, total, held, dict(Counter(_last_name(module) for module in trained)))


def _parameters_in(parameter: Any) -> int:
    """Return how many weights a tensor holds: bitsandbytes packs two 4-bit weights into a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(parameter.numel())


def _module_of(parameter: str) -> str:
    """Return ``…layers.3.self_attn.q_proj`` for ``…layers.3.self_attn.q_proj.lora_A.default.weight``."""
    parameter = parameter.replace(".modules_to_save.default.", ".")
    module, adapted, _ = parameter.partition(".lora_")
    return module if adapted else parameter.rpartition(".")[0]


def _last_name(module: str) -> str:
    """Return the last part of a module's name that is no number."""
    return next((part for part in reversed(module.split(".")) if not part.isdigit() and part != "default"), module)
