"""Count how much of a model is trained, what of it stays as it is, and how much memory its weights take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sftplug.model.reach import held as weights_held
from sftplug.model.reach import kinds_of, parts_of
from sftplug.model.structure import idle_parts, structure_of
from sftplug.types.result import ParameterCounts

if TYPE_CHECKING:
    from torch import nn


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Return the size of a model in memory, its trained modules by the last part of their names."""
    # By identity: a head that is tied to the embeddings is one tensor with two names, and counts once.
    owners = {id(parameter): name for name, parameter in model.named_parameters()}
    held = {id(parameter): weights_held(parameter) for parameter in model.parameters()}
    layers = _adapted_layers(model)
    brought, touched = _beside(model)
    trained = {layers.get(_module_of(owners[id(p)]), _module_of(owners[id(p)])) for p in _trained(model)}
    untouched = Counter[str]()
    labels = _labels(model)
    for key, name in owners.items():
        if key not in brought | touched:
            untouched[labels(name)] += held[key]
    anything = touched or any(id(parameter) not in brought for parameter in _trained(model))
    return ParameterCounts(
        trainable=sum(held[id(parameter)] for parameter in _trained(model)),
        total=sum(held.values()),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        modules=dict(Counter(_last_name(module) for module in trained)),
        ranks=_ranks(model),
        base=sum(count for key, count in held.items() if key not in brought),
        untouched=dict(untouched.most_common()) if anything else {},
        float_experts=_float_experts(model),
        parts=parts_of(model, kinds_of(_unwrapped(model)), touched, _every_rank(model)),
    )


def _trained(model: nn.Module) -> Iterator[Any]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


# --- adapters ---------------------------------------------------------------------------------------------------------


def _beside(model: nn.Module) -> tuple[set[int], set[int]]:
    """Return which parameters an adapter has brought, and which of the base it changes or which are trained."""
    brought: set[int] = set()
    touched = {id(parameter) for parameter in _trained(model)}
    for module in model.modules():
        base = _base_of(module)
        if base is not None:
            own = {id(parameter) for parameter in base.parameters()}
            brought |= {id(parameter) for parameter in module.parameters()} - own
            tensor = getattr(module, "parameter_name", None)  # PEFT's wrapper of one tensor of a module
            # What PEFT is put around is changed, all of it or the one tensor; a table beside which it trains some rows
            # is not.
            changed = [getattr(base, tensor)] if tensor else base.parameters()
            touched |= {id(parameter) for parameter in changed} if not _trains_rows(module) else set()
    return brought, touched - brought


def _base_of(module: Any) -> Any:
    """Return what PEFT has put `module` around: a layer, or a module that is trained whole."""
    if hasattr(type(module), "get_base_layer"):
        return module.get_base_layer()
    return getattr(module, "original_module", None)


def _trains_rows(module: Any) -> bool:
    """Whether a few rows of a table are trained, and the table stays as it is."""
    return hasattr(module, "trainable_tokens_delta") or hasattr(module, "token_adapter")


def _adapted_layers(model: nn.Module) -> dict[str, str]:
    """Return the name of PEFT's wrapper of a tensor -> what that tensor is called in the base.

    Wrappers are nested: ``experts.base_layer`` may hold the update of ``experts.gate_up_proj``.
    """
    return {
        name: f"{name.replace('.base_layer', '')}.{module.parameter_name}"
        for name, module in model.named_modules()
        if hasattr(type(module), "get_base_layer") and hasattr(module, "parameter_name")
    }


def _every_rank(model: nn.Module) -> dict[str, int]:
    """Return the rank of each update by what it is beside: the name of a module, or of a tensor in one, in the base."""
    layers, base = _adapted_layers(model), _unwrapped(model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is base and name), "")
    ranks: dict[str, int] = {}
    for name, module in model.named_modules():
        known = getattr(module, "r", None)
        if hasattr(type(module), "get_base_layer") and isinstance(known, Mapping):
            found = [rank for rank in known.values() if isinstance(rank, int)]
            ranks |= {layers.get(name, name).removeprefix(prefix): rank for rank in found}
    return ranks


def _ranks(model: nn.Module) -> dict[str, int]:
    """Return the rank of each update, by the last name of its module, where it is not that of most."""
    every = _every_rank(model)
    usual = next((rank for rank, _ in Counter(every.values()).most_common(1)), None)
    return {_last_name(name): rank for name, rank in every.items() if rank != usual}


def _float_experts(model: Any) -> int:
    base = _unwrapped(model)
    if not getattr(base, "is_quantized", False):
        return 0
    parameters = dict(base.named_parameters())
    tensors = [parameters[name] for name in structure_of(base).experts]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.is_floating_point())


def _unwrapped(model: Any) -> Any:
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if callable(unwrap) else model


# --- names ------------------------------------------------------------------------------------------------------------


def _labels(model: nn.Module) -> Any:
    """Return a function from the name of a parameter to its kind: its part for images, its experts, or its module."""
    base = _unwrapped(model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is base and name), "")
    parts = [f"{prefix}{part}" for part in idle_parts(base)]

    def kind(name: str) -> str:
        idle = next((part for part in parts if name == part or name.startswith(f"{part}.")), None)
        if idle is not None:
            return idle.rpartition(".")[2]
        words = [word for word in name.split(".") if word not in ("base_layer", "original_module")]
        return ".".join(words[-2:]) if words[-1] not in ("weight", "bias") else _last_name(".".join(words[:-1]))

    return kind


def _module_of(parameter: str) -> str:
    """Return ``…layers.3.self_attn.q_proj`` for ``…layers.3.self_attn.q_proj.lora_A.default.weight``."""
    parameter = parameter.replace(".modules_to_save.default.", ".")
    module, adapted, _ = parameter.partition(".lora_")
    return module if adapted else parameter.rpartition(".")[0]


def _last_name(module: str) -> str:
    """Return the last part of a module's name that is not a number."""
    return next((part for part in reversed(module.split(".")) if not part.isdigit() and part != "default"), module)
