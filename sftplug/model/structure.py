"""What a model is made of, read from its modules and never from the name of its family.

Works on a model without weights (meta device) as on a loaded one; nothing is run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class ModelStructure:
    """What an adapter must know of a model; all names are those of ``named_modules`` and ``named_parameters``."""

    linear: tuple[str, ...]
    """Linear layers, the head left out."""
    experts: Mapping[str, tuple[int, ...]]
    """Parameters that hold a matrix for each expert, and their shapes: (experts, …, …)."""
    routers: frozenset[str]
    """Modules that decide which expert, or how much of one, a token gets."""
    read_as_weights: frozenset[str]
    """Layers whose weight the model reads without calling them, so that nothing beside it would count."""
    idle: frozenset[str]
    """The topmost modules that rows of text do not run: towers and projectors for images, sound and video, layers that
    look at what they see; and parameters beside them, such as ``model.image_newline``."""

    def is_idle(self, name: str) -> bool:
        """Whether a module or parameter is in a part that rows of text do not run."""
        return any(name == part or name.startswith(f"{part}.") for part in self.idle)


def structure_of(model: nn.Module) -> ModelStructure:
    """Return what `model` is made of; it may be quantized, but must not have an adapter yet."""
    experts = {
        f"{name}.{own}": tuple(parameter.shape)
        for name, module in model.named_modules()
        if "expert" in f"{name}.{type(module).__name__}".lower()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3 and parameter.shape[0] > 1
    }
    head = _head(model)
    return ModelStructure(
        linear=tuple(name for name, module in model.named_modules() if _is_linear(module) and module is not head),
        experts=experts,
        routers=frozenset(_routers(model, experts)),
        read_as_weights=frozenset(_read_as_weights(model)),
        idle=frozenset(idle_parts(model)),
    )


def _head(model: Any) -> Any:
    find = getattr(model, "get_output_embeddings", None)
    return find() if callable(find) else None


def _is_linear(module: Any) -> bool:
    """Whether a module is a linear layer: torch's, GPT-2's, or a quantization backend's of its own."""
    if any(kind.__name__ in ("Linear", "Conv1D") for kind in type(module).__mro__):
        return True
    return "Linear" in type(module).__name__ and hasattr(module, "in_features") and hasattr(module, "out_features")


# --- mixtures of experts ----------------------------------------------------------------------------------------------


def _routers(model: nn.Module, experts: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield the layers beside the experts of a block that have one output for each of them, or a single one.

    So the router (``gate``, ``router.layer``) and the gate of a shared expert are known, whatever they are called. A
    layer within a shared expert may be as wide as there are experts: what has layers within it counts by its name too.
    """
    modules = dict(model.named_modules())
    for block, (counts, stacks) in _blocks(modules, experts).items():
        for name, child in modules[block].named_children():
            place = f"{block}.{name}"
            layers = [part for part, module in child.named_modules(prefix=place) if _outputs(module) in counts]
            if place not in stacks and (place in layers or "gate" in name or "rout" in name):
                yield from layers


def _blocks(modules: Mapping[str, Any], experts: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[set[int], set[str]]]:
    """Return each block with experts -> how many outputs its routers may have, and the modules that hold the experts.

    They are held as one tensor for all, or as a list of modules.
    """
    found: dict[str, tuple[set[int], set[str]]] = {}
    lists = {n: len(m) for n, m in modules.items() if n.endswith("experts") and type(m).__name__ == "ModuleList"}
    stacks = [(name.rpartition(".")[0], shape[0]) for name, shape in experts.items()]
    for name, count in [*lists.items(), *stacks]:
        counts, holders = found.setdefault(name.rpartition(".")[0], ({1}, set()))
        counts.add(count)
        holders.add(name)
    return found


def _outputs(module: Any) -> int | None:
    """Return how many numbers a layer puts out; a packed 4-bit weight has no shape that tells."""
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() != 2:
        return None
    return int(getattr(module, "out_features", weight.shape[0]))


_COMPUTED = re.compile(r"\baux_loss\s*=\s*(?!None\b)\w")


def router_loss_is_missing(model: nn.Module) -> str | None:
    """Return why a model has no auxiliary loss of its routers, whatever its configuration says; None if it has one.

    Granite 4 Micro is of a class with experts and has none; Llama 4 has experts, and its class computes no such loss.
    """
    if not structure_of(model).routers:
        return "the model is not a mixture of experts, and has no such loss"
    try:
        computed = _COMPUTED.search(inspect.getsource(type(model).forward))
    except (OSError, TypeError):  # a class that was made without a source file
        return None
    return None if computed else f"{type(model).__name__} computes no such loss of its routers"


# --- state spaces -----------------------------------------------------------------------------------------------------

_READ = re.compile(r"self\.(\w+)\.weight\b(?!\.(?:dtype|device|shape))")


def _read_as_weights(model: nn.Module) -> Iterator[str]:
    """Yield the layers whose weight the mixer of a state-space model reads by itself.

    Its fused kernels are handed ``self.out_proj.weight``, and its plain code computes ``self.dt_proj.weight @ x``.
    """
    mixers = {name: module for name, module in model.named_modules() if "A_log" in module._parameters}
    read = {kind: _weights_read(kind) for kind in {type(mixer) for mixer in mixers.values()}}
    for name, mixer in mixers.items():
        yield from (f"{name}.{child}" for child, _ in mixer.named_children() if child in read[type(mixer)])


def _weights_read(kind: type) -> frozenset[str]:
    try:
        return frozenset(_READ.findall(inspect.getsource(kind)))
    except (OSError, TypeError):  # a class that was made without a source file
        return frozenset()


# --- more than text ---------------------------------------------------------------------------------------------------


def idle_parts(model: Any) -> Iterator[str]:
    """Yield the topmost modules outside of the language model, and parts of it that rows of text do not run."""
    used = [model]
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config") and config.get_text_config() is not config:
        used = [model.get_decoder(), model.get_input_embeddings(), _head(model)]
    text = {id(parameter) for module in used if module is not None for parameter in module.parameters()}
    # A part for images or sound may lie within the decoder: what takes no ids is not run by rows of text.
    text -= {id(parameter) for part in (*_towers(model), *_lookers(model)) for parameter in part.parameters()}
    yield from _topmost(model, "", text)


def _towers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the models within the model that take something else than the ids of tokens."""
    for module in model.modules():
        takes = getattr(module, "main_input_name", "input_ids")
        if takes != "input_ids" and module is not model:
            yield module


def _lookers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a decoder that attend to an image alone, and are left out where there is none."""
    for module in model.modules():
        layers = getattr(module, "layers", None)
        for number in getattr(getattr(module, "config", None), "cross_attention_layers", None) or ():
            if layers is not None and number < len(layers):
                yield layers[number]


def _topmost(module: nn.Module, name: str, text: set[int]) -> Iterator[str]:
    for own_name, parameter in module.named_parameters(recurse=False):
        if id(parameter) not in text:
            yield f"{name}.{own_name}".lstrip(".")
    for child_name, child in module.named_children():
        ids = {id(parameter) for parameter in child.parameters()}
        place = f"{name}.{child_name}".lstrip(".")
        # Of a module that text does not run at all, the name is enough; one that it runs in part is looked into.
        if ids and not ids & text:
            yield place
        elif ids - text:
            yield from _topmost(child, place, text)
