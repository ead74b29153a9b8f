"""Kinds that make the model that is trained: its weights, their dtype, and which of them change."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sftplug.errors import ModelError
from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

    from sftplug.recipe.model import Recipe
    from sftplug.util.device import Device


class ModelBuilder(Component):
    """Makes a base model on the spot, for work without a download."""

    @abstractmethod
    def build(self, directory: Path) -> None:
        """Write tokenizer, configuration and safetensors weights into `directory`, which exists and is empty."""


class Quantization(Component):
    """Says the dtype or quantization of the base model's weights."""

    trainable: ClassVar[bool] = False
    """Whether the weights themselves can be trained; False for weights that only an adapter can be trained on."""
    bits: ClassVar[int]
    """Bits of one weight, for components that demand, say, a 4-bit base."""
    merges_in_place: ClassVar[bool] = False
    """Whether an adapter can be merged into the quantized weights themselves and the result saved as such; it is then
    rounded to them. False unless somebody has seen that it works: some backends do it silently wrong."""
    keeps_inputs: ClassVar[bool] = False
    """Whether products with the weights hold on to their input until the backward pass even where activations are
    checkpointed, as a ``torch.autograd.Function`` does that sets it on its context; `sftplug plan` counts them."""

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes of one weight of a quantized module; override to add its share of the quantization constants."""
        return self.bits / 8

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """Return the bytes of one quantized weight of `shape`, quantization constants and all.

        By default `bytes_per_parameter` for each of its numbers; override where a backend rounds up to whole blocks.
        """
        return math.ceil(math.prod(shape) * self.bytes_per_parameter)

    def quantized(self, model: nn.Module) -> frozenset[str]:
        """Return the names of the parameters of `model` that are held in `bits`; the others stay in the dtype.

        `model` is on the meta device, a copy that may be changed. By default transformers' own quantizer says so, for
        the ``quantization_config`` of `load_kwargs`; override for a backend that quantizes in `prepare_model`.
        """
        config = self.load_kwargs().get("quantization_config")
        if config is None:
            return frozenset()
        from transformers.quantizers import AutoHfQuantizer

        quantizer = AutoHfQuantizer.from_config(config)
        quantizer.preprocess_model(model=model, device_map=None)
        names = [name for name, _ in model.named_parameters()]
        return frozenset(name for name in names if quantizer.param_needs_quantization(model, name))

    @abstractmethod
    def load_kwargs(self) -> dict[str, Any]:
        """Return keyword arguments for ``from_pretrained``: ``dtype`` and, when needed, ``quantization_config``."""

    @property
    def adaptable(self) -> bool:
        """Whether an adapter can be trained on the weights; override it where they are for inference only."""
        return True

    def for_device(self, device: Device) -> Quantization:
        """Return the backend with every option set that it leaves to the device that the recipe is trained on.

        An option whose default says so, such as ``compute_dtype: ComputeDtype | None = None``, is set here from what
        `device` does fast, with ``self.model_copy(update=…)``. The record of the run holds it, so that the weights are
        computed with as they were in training wherever the result is loaded. By default nothing is left open.
        """
        return self

    def prepare_model(self, model: nn.Module) -> None:
        """Change the loaded model in place where the backend needs it; nothing by default."""

    def loading_code(self) -> str:
        """Return Python that does to a loaded ``model`` what `prepare_model` does; empty by default.

        It stands in the code of the model card, which loads a run's result where there is no sftplug.
        """
        return ""

    def dequantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return `model` with its weights as floats: the very numbers that an adapter was trained on.

        Float weights are returned as they are; of others, transformers' own quantizer makes floats. Raises ModelError
        when it cannot; override where a backend has a way of its own.
        """
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is None:
            return model
        try:
            return cast("PreTrainedModel", quantizer.dequantize(model))
        except NotImplementedError as error:
            raise ModelError(f"{self.type} weights cannot be made floats again: {error}") from error


class Adapter(Component):
    """Says which parameters are trained.

    There are three sorts. `peft_config` returns a configuration, and PEFT trains, saves and loads; or it returns None
    and `trains_base` is set, and weights of the base are trained, which are saved whole; or it returns None and
    `prepare_model` puts parameters of the adapter's own into the model, which `save` and `load` see to, and
    `loading_code` for whoever has no sftplug. An adapter that overrides one of these four, or `merge`, is of the last
    sort too.
    """

    default_quantization: ClassVar[str | None] = None
    """The quantization a recipe gets that names this adapter and no quantization; None for floats of the type that the
    device trains fastest in."""
    trains_base: ClassVar[bool] = False
    """Whether weights of the base model itself are trained."""
    weights_file: ClassVar[str] = "adapter.safetensors"
    """Where `save` writes by default, in the folder that it gets."""

    def quantization_for(self, device: Device) -> str:
        """Return the name of the quantization that a recipe gets on `device` that names this adapter and no other.

        By default `default_quantization`; where that is None ``bf16``, on a GPU without units for bfloat16 ``fp16``,
        on a CPU without them ``fp32``. The record of the run holds what was chosen.
        """
        return self.default_quantization or device.float_quantization

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return options of the ``train`` section that suit it: ``learning_rate``, ``lr_scheduler_type``,
        ``warmup_steps`` …; what the recipe says itself comes first, then what its callbacks mean.

        The rate is meant for Adam and its kin, and is left out where the recipe names an optimizer of another sort; so
        is the warmup where it names a schedule without one. `sftplug check` tells of a rate that is ten times as high,
        or a tenth. `recipe` holds what was written. Must be quick and must not import a heavy library.

        By default 2e-5 where `trains_base`, TRL's own rate and that of Alpaca (Taori et al. 2023), and ten times as
        much for everything that is trained beside a frozen base: "LoRA Without Regret" (Schulman et al. 2025,
        https://thinkingmachines.ai/blog/lora) found the best rate of LoRA at ten times that of full fine-tuning,
        whatever the rank. Linear decay to zero, after a warmup over 3 % of the updates.
        """
        rate = 2e-5 if self.trains_base else 2e-4
        return {"learning_rate": rate, "lr_scheduler_type": "linear", "warmup_steps": 0.03}

    @property
    def mergeable(self) -> bool:
        """Whether what is trained can be merged into the weights of the base; for adapters beside them."""
        return True

    @abstractmethod
    def peft_config(self) -> PeftConfig | None:
        """Return the PEFT configuration, or None when the model's own parameters are trained."""

    def prepare_model(self, model: nn.Module) -> None:
        """Choose what is trained when `peft_config` returns None, or put it into the model; called on the loaded one.

        Called on a model whose weights are on the meta device too: what it makes belongs on the device of the module
        that it goes to, in floats of 32 bits.
        """

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write to `folder`, which is there, what `load` needs to make of the base what `model` is.

        For adapters that are no type of PEFT. By default everything that is trained, by its name in the model, to
        `weights_file`. ``sftplug_adapter.json``, with type, options and base, is written beside it.
        """
        from safetensors.torch import save_file

        trained = {name: value.detach().cpu().clone() for name, value in _trained(model).items()}
        save_file(trained, folder / self.weights_file, metadata={"format": "pt"})

    def load(self, model: nn.Module, folder: Path) -> None:
        """Make of the base, `model`, what was trained: what `save` has written is in `folder`.

        For adapters that are no type of PEFT. By default `prepare_model` is called, and what it lets be trained gets
        the saved numbers. Raises ModelError when they are not those that it needs.
        """
        import torch
        from safetensors.torch import load_file

        self.prepare_model(model)
        saved, wanted = load_file(folder / self.weights_file), _trained(model)
        shapes, known = ({name: list(value.shape) for name, value in found.items()} for found in (saved, wanted))
        if shapes != known:
            other = next(name for name in {**known, **shapes} if known.get(name) != shapes.get(name))
            held, needed = shapes.get(other, "nothing"), known.get(other, "nothing")
            raise ModelError(f"{folder / self.weights_file} does not fit the model: {other} is {held}, not {needed}.")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(saved[name])

    def loading_code(self) -> str:
        """Return Python that does to the base, `model`, what `load` does, without sftplug and without the plugin.

        For adapters that are no type of PEFT; it stands in the code of the model card, below the lines that load the
        base and `files`, a ``Path`` to what was saved. The run executes it, and compares logits, before it is called
        finished.
        """
        return ""

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Yield a sentence for everything that does not fit `model`, whose weights are on the meta device."""
        return ()

    def check_merge(self, quantization: Quantization, *, in_place: bool) -> Iterable[str]:
        """Yield a sentence for every reason why this adapter, once trained, cannot become part of the weights.

        Called before weights are loaded. `quantization` is the base's; `in_place` says that its weights stay quantized,
        otherwise they are made floats before. By default what PEFT's configuration tells.
        """
        config = self.peft_config()
        if config is None and stands_beside(self):
            if type(self).merge is Adapter.merge:
                yield f"'{self.type}' is no type of PEFT and has no `merge` of its own. Load it beside the base."
        elif config is None:
            yield f"there is nothing to merge: '{self.type}' trains the weights themselves, and they are saved whole."
        elif config.is_prompt_learning:
            yield f"'{self.type}' trains a prompt, which no weight can stand for. Load it with PEFT beside the base."

    def merge(self, model: Any) -> PreTrainedModel:
        """Return the base of `model` with the trained update in its weights; changes them in place.

        `model` is a ``PeftModel``, or what `load` makes of the base. By default PEFT merges. Raises ModelError when it
        cannot.
        """
        try:
            return cast("PreTrainedModel", model.merge_and_unload(safe_merge=True))
        except (NotImplementedError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelError(f"PEFT cannot merge '{self.type}': {error}") from error


def stands_beside(adapter: Adapter) -> bool:
    """Whether an adapter whose `peft_config` is None has parameters of its own, which it saves and loads itself."""
    own = ("save", "load", "loading_code", "merge")
    return not adapter.trains_base or any(getattr(type(adapter), name) is not getattr(Adapter, name) for name in own)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
