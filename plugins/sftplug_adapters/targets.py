"""Which modules and parameters of a model a LoRA adapts: PEFT gets names that mean exactly these."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftplug import ModelStructure, did_you_mean, structure_of

if TYPE_CHECKING:
    from torch import nn

HALVES: Mapping[str, Sequence[tuple[str, ...]]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("w2",),),
}
"""A tensor of all experts -> what its parts are called in the checkpoints, one of the groups in each."""


_ADAPTABLE = ("Linear", "Conv1D", "Embedding", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention")
"""Classes of modules that PEFT's LoRA has a layer for."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is adapted, by whole names."""

    modules: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    """Tensors that PEFT adapts by themselves: those of all experts, and weights of what is not a linear layer."""
    pairs: tuple[str, ...] = ()
    """Those of `parameters` that are meant by names of two projections, gate and up: each of the two has its rank."""


@dataclass
class Memo:
    """What the model at hand decides; no part of what a recipe says, so any two are equal."""

    targets: Targets | None = None
    whole: list[str] | None = None
    """What is trained whole, by names that PEFT takes for nothing else; None for what the recipe says."""
    tied: bool = False
    """Whether a table that is trained whole is both embeddings and head."""
    float_base: bool = True
    turned: bool = False
    """Whether the layers that are adapted hold their weights the other way round, (in, out), as GPT-2's do."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Memo)

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class Search:
    """Find the targets that a recipe names in a model, and what is wrong with the names."""

    model: Any
    exclude: Sequence[str]
    whole: Sequence[str]
    """Modules that are trained whole."""
    float_base: bool
    structure: ModelStructure = field(init=False)
    names: list[str] = field(init=False)
    """All modules."""
    holders: frozenset[str] = field(init=False)
    """Modules that hold the tensors of all experts."""

    def __post_init__(self) -> None:
        self.structure = structure_of(self.model)
        self.holders = frozenset(name.rpartition(".")[0] for name in self.structure.experts)
        self.names = [name for name, _ in self.model.named_modules() if name]

    # --- what is adapted ----------------------------------------------------------------------------------------------

    def all_linear(self) -> Targets:
        """Return every linear layer and every expert, without the head, routers, and what gets no gradient."""
        skipped = self.structure.routers | self.structure.read_as_weights
        return self._targets(
            [name for name in self.structure.linear if name not in skipped and not self.structure.is_idle(name)],
            [name for name in self.structure.experts if not self.structure.is_idle(name)],
        )

    def named(self, targets: Sequence[str]) -> Targets:
        """Return what `targets` name: modules, tensors of experts, or the projections that such a tensor holds."""
        modules = [name for name in self.names if any(_is(name, target) for target in targets)]
        modules = [name for name in modules if not self.structure.is_idle(name) and name not in self.holders]
        plain = {name for name in modules if name in self.structure.routers and name not in self.structure.linear}
        whole = {name for name in self.structure.experts if self._names_expert(name, targets)}
        parts = {name: self._parts_named(name, targets) for name in self.structure.experts if name not in whole}
        experts = [name for name in self.structure.experts if name in whole or parts[name]]
        return self._targets(
            [name for name in modules if name not in plain],
            [*experts, *(f"{name}.weight" for name in sorted(plain))],
            pairs={name for name, named in parts.items() if len(named) == 2},
        )

    def _targets(self, modules: Sequence[str], parameters: Sequence[str], pairs: Set[str] = frozenset()) -> Targets:
        taken = names_taken(self.model, self.structure)
        kept = [name for name in modules if not self._left_out(name)]
        weights = [f"{name}.weight" for name in kept if _last(name) in taken] if self.float_base else []
        chosen = [*(name for name in parameters if not self._left_out(name)), *weights]
        return Targets(
            modules=tuple(name for name in kept if _last(name) not in taken),
            parameters=tuple(chosen),
            pairs=tuple(name for name in chosen if name in pairs),
        )

    def _left_out(self, name: str) -> bool:
        """Whether a module or a tensor is excluded or trained whole, by itself or as a part of what is."""
        return any(_excludes(pattern, name) for pattern in self.exclude) or self._is_whole(name)

    def _is_whole(self, name: str) -> bool:
        return any(_is(place, module) for place in _places(name) for module in self.whole)

    @staticmethod
    def _names_expert(name: str, targets: Sequence[str]) -> bool:
        """Whether a tensor of experts, or the module that holds it, is named as it is in the model."""
        return any(_is(place, target) for place in (name, name.rpartition(".")[0]) for target in targets)

    def _parts_named(self, name: str, targets: Sequence[str]) -> tuple[str, ...]:
        """Return the projections in a tensor of experts that `targets` name, if they name all of them."""
        # `gate_proj` and `up_proj` are one tensor here: it is meant where both are named, and not where one is
        # (`_half_alone`).
        groups = self._halves(name)
        return next((group for group in groups if all(self._named(half, targets) for half in group)), ())

    def _halves(self, name: str) -> list[tuple[str, ...]]:
        """Return the whole names that the parts of an expert's tensor would have."""
        holder, _, own = name.rpartition(".")
        return [tuple(f"{holder}.{part}" for part in group) for group in HALVES.get(own, ())]

    @staticmethod
    def _named(name: str, targets: Sequence[str]) -> bool:
        return any(_is(name, target) for target in targets)

    def is_a(self, name: str, *kinds: str) -> bool:
        """Whether a module is of a class that is called so, or of one derived from it."""
        return any(kind.__name__ in kinds for kind in type(self.model.get_submodule(name)).__mro__)

    def saved_whole(self) -> list[str] | None:
        """Return whole names of what is trained whole, where PEFT would take shorter ones for more than is meant.

        It compares the ends of names, whatever stands before them: its ``norm`` is every ``input_layernorm`` too.
        """
        meant = [name for name in self.names if self._named(name, self.whole) and not self.structure.is_idle(name)]
        taken = [name for name in self.names if any(name.endswith(module) for module in self.whole)]
        return meant if set(taken) != set(meant) else None

    def saves_tied(self) -> bool:
        """Whether a module that is trained whole shares its weights with another: PEFT then trains one for both."""
        tables = [
            getattr(self.model, find, lambda: None)() for find in ("get_input_embeddings", "get_output_embeddings")
        ]
        names = [name for name in self.names if any(self.model.get_submodule(name) is table for table in tables)]
        weights = {id(table.weight) for table in tables if table is not None}
        # Two modules, and one tensor.
        return len(names) == 2 and len(weights) == 1 and any(self._named(name, self.whole) for name in names)

    # --- what is wrong ------------------------------------------------------------------------------------------------

    def problems(self, targets: Sequence[str]) -> Iterator[str]:
        """Yield a sentence for every target that names nothing, or what cannot be adapted."""
        for target in targets:
            yield from self._problems_of(target, targets)

    def without_effect(self, targets: Sequence[str] | None) -> Iterator[str]:
        """Yield a sentence for every pattern of `exclude` that leaves nothing out; no `targets` are all layers."""
        adaptable = [name for name in self.names if self._takes_adapter(name)] + [*self.structure.experts]
        for pattern in self.exclude:
            found = [name for name in adaptable if _excludes(pattern, name)]
            reached = found if targets is None else [name for name in found if self._means(name, targets)]
            if not any(fnmatch.fnmatch(name, pattern) for name in (*self.names, *self.structure.experts)):
                yield f"`exclude: {pattern}` matches no module of the model. One is called {self.names[-1]}."
            elif not found:
                yield f"`exclude: {pattern}` matches nothing that could be adapted. Take it out."
            elif not reached:
                yield f"`exclude: {pattern}` leaves out nothing that `targets` names, such as {found[0]}. Take it out."

    def _means(self, name: str, targets: Sequence[str]) -> bool:
        """Whether `targets` name a module, or a tensor of experts or a part of it, were it not left out."""
        parts = [part for group in self._halves(name) for part in group]
        return self._names_expert(name, targets) or any(self._named(part, targets) for part in parts)

    def _takes_adapter(self, name: str) -> bool:
        return name in self.structure.routers or self.is_a(name, *_ADAPTABLE)

    def _problems_of(self, target: str, targets: Sequence[str]) -> Iterator[str]:
        everything = [name for name in [*self.names, *self.structure.experts] if _is(name, target)]
        if everything and all(self._left_out(name) for name in everything):
            option = "modules_to_save" if target in self.whole else "exclude"
            yield f"`{option}` leaves out all that target '{target}' names. Take it out of one of the two."
            return
        found = [name for name in self.names if _is(name, target) and not self._left_out(name)]
        experts = [name for name in self.structure.experts if not self._left_out(name)]
        lone = [group for name in experts for group in self._halves(name) if any(_is(half, target) for half in group)]
        if not found and not lone and not any(_is(name, target) for name in experts):
            yield self._no_module(target)
        for group in lone[:1]:
            yield from _half_alone(target, group, targets)
        head = getattr(self.model, "get_output_embeddings", lambda: None)()
        if any(self.model.get_submodule(name) is head for name in found):
            yield f"target '{target}' would be ignored by the fused loss. Put it under `modules_to_save`."
        if found and all(self.structure.is_idle(name) for name in found):
            part = _tower(self.structure, found[0])
            yield f"target '{target}' is in {part} alone, which rows of text do not run. Leave it out."
        yield from self._no_layer(target, found)
        yield from self._read_by_kernels(target, found)

    def _no_layer(self, target: str, found: Sequence[str]) -> Iterator[str]:
        known = {*self.structure.linear, *self.structure.routers, *self.holders}
        for name in [name for name in found if name not in known]:
            if not self._takes_adapter(name):
                inside = [child for child, _ in self.model.get_submodule(name).named_children()]
                hint = f" Name layers in it: {', '.join(inside)}." if inside else ""
                yield f"target '{target}' is not a layer that can be adapted.{hint}"
                return

    def _read_by_kernels(self, target: str, found: Sequence[str]) -> Iterator[str]:
        read = [name for name in found if name in self.structure.read_as_weights]
        if read:
            mixer = type(self.model.get_submodule(read[0].rpartition(".")[0])).__name__
            yield (
                f"target '{target}': {mixer} reads the weight of its {target} without calling the layer, so an adapter "
                "beside it would not be trained. Leave it out of `targets`."
            )

    def missing(self, modules: Iterable[str]) -> Iterator[str]:
        """Yield a sentence for every module that is to be trained whole and is not there."""
        for module in modules:
            found = [name for name in self.names if _is(name, module)]
            if not found:
                yield self._no_module(module)
            elif all(any(_excludes(pattern, name) for pattern in self.exclude) for name in found):
                yield f"`exclude` leaves out all that `modules_to_save: {module}` names. Take it out of one of the two."
            elif not any(True for name in found for _ in self.model.get_submodule(name).parameters()):
                yield f"`modules_to_save: {module}` has no weights that could be trained. Leave it out."
            elif all(self.structure.is_idle(name) for name in found):
                part = _tower(self.structure, found[0])
                yield f"`modules_to_save: {module}` is in {part} alone, which rows of text do not run. Leave it out."

    def _no_module(self, target: str) -> str:
        ends = {_last(name) for name in self.names if not _last(name).isdigit() and not self._left_out(name)}
        ends |= {_last(name) for name in self.structure.experts}
        return (
            f"target '{target}' matches no module of the model.{did_you_mean(target, ends)} "
            f"Its modules: {', '.join(sorted(ends))}."
        )


def names_taken(model: nn.Module, structure: ModelStructure) -> frozenset[str]:
    """Return the names of linear layers that PEFT takes for those of experts, whatever stands before them.

    PEFT rewrites targets such as ``gate_proj`` for families whose experts have become one tensor, and so loses the
    dense layers and shared experts of the same name: these are adapted by their weights.
    """
    if not structure.experts:
        return frozenset()
    try:
        convert = importlib.import_module("peft.utils.transformers_weight_conversion")
    except ImportError:  # a PEFT that rewrites nothing
        return frozenset()
    from peft import LoraConfig

    ends = {_last(name) for name in structure.linear}
    probe = LoraConfig(
        target_modules=sorted({*ends, *(part for groups in HALVES.values() for g in groups for part in g)})
    )
    convert.convert_peft_config_for_transformers(probe, model=model, conversions=None)
    return frozenset(ends - set(probe.target_modules))


def _half_alone(target: str, group: tuple[str, ...], targets: Sequence[str]) -> Iterator[str]:
    """Yield a sentence when one half of a tensor is named and the other is not."""
    missing = [half for half in group if not any(_is(half, other) for other in targets)]
    if missing and len(missing) < len(group):
        yield (
            f"target '{target}': the experts hold it and {_last(missing[0])} in one tensor, which is adapted as a "
            f"whole. Add '{_last(missing[0])}' to `targets`, or leave the experts out: `exclude: ['*.experts']`."
        )


def _tower(structure: ModelStructure, name: str) -> str:
    return next(part for part in structure.idle if name == part or name.startswith(f"{part}."))


def _is(name: str, target: str) -> bool:
    """Whether `target` is a whole name or its end."""
    return name == target or name.endswith(f".{target}")


def _places(name: str) -> Iterator[str]:
    """Yield a name and those of all that it is a part of: ``a.b.c``, ``a.b``, ``a``."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _excludes(pattern: str, name: str) -> bool:
    """Whether a pattern of whole names matches a module or tensor, or what it is a part of: ``*.experts``."""
    return any(fnmatch.fnmatch(place, pattern) for place in _places(name))


def _last(name: str) -> str:
    return name.rpartition(".")[2]
