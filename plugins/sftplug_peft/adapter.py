"""What all adapter types of PEFT have in common."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PrivateAttr

from sftplug import Adapter, MissingLibraryError, ModelStructure, require, set_options, structure_of
from sftplug_peft.effects import without_effect
from sftplug_peft.facts import adapts_linear_layers, merge_refusals, refusals, resume_refusals
from sftplug_peft.rates import usual_rate

if TYPE_CHECKING:
    from torch import nn

    from sftplug import Quantization, Recipe

_TARGETS = "target_modules"
_EXCLUDE = "exclude_modules"
_WITHOUT_EFFECT = {"orth_reg_weight": "PEFT adds it to the model's own loss, and the loss is computed from its logits"}
"""Option -> why it changes nothing here, whatever it says."""


class PeftAdapter(Adapter):
    """An adapter type of PEFT: its options are PEFT's, and what is left out is left to PEFT."""

    peft_type: ClassVar[str]
    """PEFT's own name of the type."""
    config: ClassVar[Callable[[], Any]]
    """Imports and returns PEFT's configuration class."""
    remake: ClassVar[Callable[[dict[str, Any], dict[str, Any]], PeftAdapter]]
    """Returns an adapter of this type, with options and what the model decided."""

    _chosen: dict[str, Any] = PrivateAttr(default_factory=dict)
    """Options that the model at hand decides."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was set: the class is made, and so it cannot be imported where the copy is read."""
        return type(self).remake, (self.model_dump(by_alias=True, exclude_unset=True), self._chosen)

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return what suits the type's family: `rates.FAMILIES` has the rates with their sources."""
        return {**super().train_defaults(recipe), "learning_rate": usual_rate(self.peft_type)}

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when this type is known not to train or go on with this quantization, or an option has no effect."""
        yield from refusals(self.type, recipe.quantization.type)
        if recipe.train.get("save_strategy") != "no":
            yield from resume_refusals(self.type, recipe.quantization.type)
        for name, why in _WITHOUT_EFFECT.items():
            field = type(self).model_fields.get(name)
            if field is not None and getattr(self, name) != field.default:
                yield f"`{name}` has no effect: {why}. Leave it out."

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say so when PEFT refuses the options, or finds no module to adapt, on the model without weights."""
        peft = require("peft", needed_by=f"adapter {self.type}")
        self._choose_targets(model)
        # Before PEFT puts anything into the model: from then on modules have other names.
        structure, plain = structure_of(model), copy.deepcopy(model)
        try:
            adapted = peft.get_peft_model(model, self.peft_config())
        except ImportError as error:
            raise MissingLibraryError(f"adapter {self.type}: {error}") from error
        except OSError as error:  # such as a tokenizer that is not there
            yield f"PEFT refuses it: {str(error).splitlines()[0]}"
        except ValueError as error:
            read = structure.read_as_weights
            way = f" {self._leaving_out(read, structure)} leaves such layers out." if read else ""
            yield f"PEFT refuses it: {error}{way}"
        except Exception:  # noqa: BLE001 - what needs weights cannot be told without them
            return
        else:
            yield from self._idle(structure, adapted)
            yield from self._head(adapted)
            yield from without_effect(plain, self._options(), lambda options: self._put_into(plain, options))

    def _put_into(self, model: nn.Module, options: Mapping[str, Any]) -> nn.Module:
        """Return a copy of a model with an adapter of other options in it."""
        peft = require("peft", needed_by=f"adapter {self.type}")
        config = type(self).config()(task_type="CAUSAL_LM", **options)
        adapted: nn.Module = peft.get_peft_model(copy.deepcopy(model), config)
        return adapted

    def _idle(self, structure: ModelStructure, adapted: nn.Module) -> Iterable[str]:
        """Say so when something is trained that rows of text do not run, or whose weight the model reads by itself."""
        names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
        names = [name.removeprefix("base_model.model.") for name in names]
        idle = [name for name in names if structure.is_idle(name)]
        read = [name for name in names if any(name.startswith(f"{layer}.") for layer in structure.read_as_weights)]
        if idle:
            way = self._leaving_out(structure.idle, structure)
            yield f"it would train {idle[0]}, which rows of text do not run. {way} leaves such parts out."
        elif read:
            way = self._leaving_out(structure.read_as_weights, structure)
            yield f"it would train {read[0]}, beside a weight that fused kernels read. {way} leaves such layers out."

    def _head(self, adapted: nn.Module) -> Iterable[str]:
        """Say so when the head is adapted: TRL's loss multiplies by its weight and calls no adapter, and refuses it."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        head = getattr(adapted, "get_output_embeddings", lambda: None)()
        if isinstance(head, BaseTunerLayer):
            if getattr(self, "ensure_weight_tying", False):
                yield (
                    "`ensure_weight_tying` adapts the head too, where the fused loss calls no adapter. Leave it out: "
                    "the embeddings are adapted alone, and `sftplug merge` gives the head weights of its own."
                )
                return
            name = next(name for name, module in adapted.named_modules() if module is head).rpartition(".")[2]
            yield f"an adapter on the head '{name}' would be ignored by the fused loss. Take it out of `{_TARGETS}`."

    def _leaving_out(self, parts: Iterable[str], structure: ModelStructure) -> str:
        """Return the option that leaves out parts of a model; a type without it must be told what to adapt."""
        if _EXCLUDE in type(self).model_fields:
            return f"`{_EXCLUDE}: '{_pattern(parts)}'`"
        kept = [name for name in structure.linear if not structure.is_idle(name)]
        ends = sorted({name.rpartition(".")[2] for name in kept if name not in structure.read_as_weights})
        return f"`{_TARGETS}: '(?!{_pattern(parts)}$)(.*\\.)?({'|'.join(ends)})'`"

    def check_merge(self, quantization: Quantization, *, in_place: bool) -> Iterable[str]:
        """Say so when this type is known not to merge."""
        yield from super().check_merge(quantization, in_place=in_place)
        yield from merge_refusals(self.type)

    def prepare_model(self, model: nn.Module) -> None:
        """Choose the layers to adapt where neither the recipe nor PEFT says which."""
        self._choose_targets(model)

    def _choose_targets(self, model: nn.Module) -> None:
        """Adapt all linear layers of a family of models for which PEFT has no list.

        PEFT's lists name the layers of a few dozen families; `all-linear` is what its types with linear layers in
        their lists understand for any other. Left out is what would get no gradient.
        """
        family = getattr(getattr(model, "config", None), "model_type", None)
        if _TARGETS not in type(self).model_fields or getattr(self, _TARGETS) is not None:
            return
        structure = structure_of(model)
        left_out = structure.idle | structure.read_as_weights
        # A type without that option counts as one in which it is set: there is nothing to choose.
        if left_out and getattr(self, _EXCLUDE, "set") is None:
            self._chosen[_EXCLUDE] = _pattern(left_out)
        if not self._lists(family) and adapts_linear_layers(self.type):
            self._chosen[_TARGETS] = "all-linear"

    def _lists(self, family: str | None) -> bool:
        """Whether PEFT needs no list for this type, or has one for the family."""
        mapping = require("peft.mapping", needed_by=f"adapter {self.type}").PEFT_TYPE_TO_TUNER_MAPPING
        known = next((tuner for name, tuner in mapping.items() if name.value.lower() == self.peft_type), None)
        lists = getattr(known, "target_module_mapping", None)
        return not lists or family in lists

    def peft_config(self) -> Any:
        """Return PEFT's own configuration."""
        require("peft", needed_by=f"adapter {self.type}")
        return type(self).config()(task_type="CAUSAL_LM", **self._options())

    def _options(self) -> dict[str, Any]:
        return {**self._chosen, **set_options(self, leave_out=frozenset({"type"}))}


def _pattern(parts: Iterable[str]) -> str:
    """Return a regular expression for modules and all that is in them, a number for each layer of theirs."""
    return f"({'|'.join(sorted({_LAYER.sub(_ANY_LAYER, re.escape(part)) for part in parts}))})(\\..*)?"


# Escaped, a name reads ``layers\.3\.mlp``: a number between a dot and the next backslash is that of a layer.
_LAYER = re.compile(r"(?<=\.)\d+(?=\\)")
_ANY_LAYER = r"\\d+"
