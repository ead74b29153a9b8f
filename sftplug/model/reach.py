"""What an adapter reaches: which kinds of modules a model has, and what is done with each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sftplug.model.structure import ModelStructure, structure_of
from sftplug.types.result import ModelPart

if TYPE_CHECKING:
    from torch import nn

KINDS = (
    "attention",
    "state space",
    "MLP",
    "experts",
    "router",
    "embeddings",
    "head",
    "norms",
    "vision",
    "audio",
    "other",
)
"""In the order in which they are told. Vision and audio are what rows of text do not run."""
_EXPERTS = re.compile(r"(^|\.)(shared_)?experts?(\.|$)")
_AUDIO = re.compile("audio|sound|speech")
_CLASSES = {"attention": "Attention", "MLP": "MLP|Mlp|FeedForward|FFN", "experts": "MoE$"}
"""Kind -> what the name of a class has in it."""


_KNOWN: WeakKeyDictionary[Any, Mapping[str, str]] = WeakKeyDictionary()


def kinds_of(model: Any) -> Mapping[str, str]:
    """Return the kind of each parameter of a model, by its name.

    What it said of a model stays what it says: so it is asked before an adapter is put into the model, among whose
    layers modules are no longer found by what they are beside.
    """
    if model not in _KNOWN:
        modules, structure = dict(model.named_modules()), structure_of(model)
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        _KNOWN[model] = {name: _kind(name, modules, structure) for name in names}
    return _KNOWN[model]


def _kind(name: str, modules: Mapping[str, Any], structure: ModelStructure) -> str:
    owner = name.rpartition(".")[0]
    if structure.is_idle(name):
        return "audio" if _AUDIO.search(name) else "vision"
    if owner in structure.routers:
        return "router"
    if _EXPERTS.search(name) or name in structure.experts:
        return "experts"
    return _kind_of_module(owner, modules, structure)


def _kind_of_module(owner: str, modules: Mapping[str, Any], structure: ModelStructure) -> str:
    """Return the kind of a module that is neither of the experts nor of a tower."""
    module, model = modules[owner], modules[""]
    if module is getattr(model, "get_output_embeddings", lambda: None)():
        return "head"
    if any(kind.__name__ == "Embedding" for kind in type(module).__mro__):
        return "embeddings"
    if "norm" in type(module).__name__.lower():
        return "norms"
    around = [modules[place] for place in _around(owner)]
    if any("A_log" in other._parameters for other in around):
        return "state space"
    for other in around:
        for kind, words in _CLASSES.items():
            if re.search(words, type(other).__name__):
                return kind
    return "MLP" if owner in structure.linear else "other"


def _around(name: str) -> Iterator[str]:
    """Yield a module's name and those of the modules around it, from within."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def parts_of(
    model: nn.Module, kinds: Mapping[str, str], touched: Collection[int], ranks: Mapping[str, int]
) -> tuple[ModelPart, ...]:
    """Return what is done with each kind of module of `model`, which an adapter may have been put into.

    `kinds` is what `kinds_of` said of it before; `touched` has the ``id`` of the base's weights that the adapter
    changes, and `ranks` the rank of an update by the name of what it is beside.
    """
    owners: dict[str, tuple[str, str, str]] = {}
    counts: Counter[str] = Counter()
    # The largest first: what is done with its weight is done with a layer, whatever becomes of its bias.
    for name, parameter in sorted(model.named_parameters(), key=lambda item: -item[1].numel()):
        plain = plain_name(name, kinds)
        if plain is not None:
            # Each tensor of experts is counted, of all else the modules.
            owner = plain if parameter.dim() == 3 and kinds[plain] == "experts" else plain.rpartition(".")[0]
            rank = ranks.get(plain.removesuffix(".weight"), ranks.get(plain))
            owners.setdefault(owner, (kinds[plain], _done(name, parameter, touched, rank), _numbers(parameter)))
            counts[owner] += held(parameter)
    found = Counter(owners.values())
    parts = [
        ModelPart(*key, modules, sum(counts[owner] for owner in owners if owners[owner] == key))
        for key, modules in found.items()
    ]
    return tuple(sorted(parts, key=lambda part: (KINDS.index(part.kind), -part.parameters)))


def plain_name(name: str, known: Collection[str]) -> str | None:
    """Return what a parameter was called before an adapter was put into its model; None of the adapter's own."""
    words = [word for word in name.split(".") if word not in ("base_layer", "original_module")]
    # ``base_model.model.model.norm.weight``: PEFT puts names before, and of these how many is its business.
    return next((place for start in range(3) if (place := ".".join(words[start:])) in known), None)


def _done(name: str, parameter: Any, touched: Collection[int], rank: int | None) -> str:
    if parameter.requires_grad or "original_module." in name:
        return "trained"
    if id(parameter) not in touched:
        return "frozen"
    return "adapted" if rank is None else f"adapted, rank {rank}"


def held(parameter: Any) -> int:
    """Return how many weights a tensor holds: bitsandbytes packs two 4-bit weights into a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else int(parameter.numel())


def _numbers(parameter: Any) -> str:
    """Return what the weights of a tensor are held as: ``nf4``, ``int8``, ``bfloat16``."""
    known = getattr(parameter, "held_as", None) or getattr(getattr(parameter, "quant_state", None), "quant_type", None)
    return str(known or parameter.dtype).removeprefix("torch.")
