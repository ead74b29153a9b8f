"""Calls of what makes the model that is trained: builders, quantizations, adapters."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from sftplug.plugin.calls.check import checked, read_only, sentences
from sftplug.plugin.components.model import Quantization, stands_beside
from sftplug.plugin.errors import plugin_error, plugin_errors

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

    from sftplug.plugin.components import Adapter, ModelBuilder, ModelPatch
    from sftplug.recipe.model import Recipe
    from sftplug.util.device import Device


OWNED_LOAD_KWARGS: Mapping[str, str] = {
    "revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "attn_implementation": "model.attn_implementation",
    "use_safetensors": "model",
}
"""Arguments of ``from_pretrained`` that sections of the recipe decide, and no quantization."""


def load_kwargs(quantization: Quantization) -> dict[str, Any]:
    """Return the arguments for ``from_pretrained``. Raises PluginError when they are no such arguments."""
    with plugin_errors(quantization, "load_kwargs"):
        answer: object = quantization.load_kwargs()
    arguments: dict[str, Any] = checked(quantization, "load_kwargs", answer, dict, "a dict of keyword arguments")
    for name in arguments:
        if name in OWNED_LOAD_KWARGS:
            section = OWNED_LOAD_KWARGS[name]
            raise plugin_error(
                quantization, "load_kwargs", f"must not return {name!r}: the recipe's `{section}` decides it"
            )
    return arguments


def loading_code(part: Quantization | ModelPatch | Adapter) -> str:
    """Return the Python of a component for the model card. Raises PluginError for anything but Python of its own."""
    with plugin_errors(part, "loading_code"):
        answer: object = part.loading_code()
    code: str = checked(part, "loading_code", answer, str, "Python as text")
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise plugin_error(part, "loading_code", f"must return Python: {error.msg}, line {error.lineno}") from error
    if "sftplug" in _imported(tree):
        raise plugin_error(part, "loading_code", "must do without sftplug, which a reader of the card may not have")
    return code


def changes_model(quantization: Quantization) -> bool:
    """Whether a quantization changes the model once it is loaded."""
    return type(quantization).prepare_model is not Quantization.prepare_model


def _imported(tree: ast.Module) -> set[str]:
    """Return the names of the packages that some code imports."""
    # `import torch, sftplug.data as data` is one statement that imports two packages.
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def adaptable(quantization: Quantization) -> bool:
    """Return whether an adapter can be trained on the weights. Raises PluginError for anything but true or false."""
    with plugin_errors(quantization, "adaptable"):
        answer: object = quantization.adaptable
    return bool(checked(quantization, "adaptable", answer, bool, "True or False"))


def for_device(quantization: Quantization, device: Device) -> Quantization:
    """Return a quantization with all options set. Raises PluginError for anything but one of the same class."""
    with plugin_errors(quantization, "for_device"):
        answer: object = quantization.for_device(device)
    settled: Quantization = checked(quantization, "for_device", answer, type(quantization), "one of its own class")
    return settled


def quantized_names(quantization: Quantization, model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that are quantized; what its library raises, it raises."""
    answer: object = quantization.quantized(model)
    names: frozenset[str] = checked(quantization, "quantized", answer, frozenset, "a frozenset of names")
    return names


def weight_bytes(quantization: Quantization, shape: Sequence[int]) -> int:
    """Return the bytes of a quantized weight of `shape`. Raises PluginError for anything but a whole number."""
    with plugin_errors(quantization, "weight_bytes"):
        answer: object = quantization.weight_bytes(shape)
    return int(checked(quantization, "weight_bytes", answer, Integral, "a whole number of bytes"))


def bytes_per_parameter(quantization: Quantization) -> float:
    """Return the bytes of one weight of a quantized module. Raises PluginError for anything but a number."""
    with plugin_errors(quantization, "bytes_per_parameter"):
        answer: object = quantization.bytes_per_parameter
    return float(checked(quantization, "bytes_per_parameter", answer, Real, "a number of bytes"))


def dequantized(quantization: Quantization, model: PreTrainedModel) -> PreTrainedModel:
    """Return `model` with its weights as floats. Raises ModelError where the backend cannot do that."""
    with plugin_errors(quantization, "dequantize"):
        return quantization.dequantize(model)


def build_model(builder: ModelBuilder, folder: Path) -> None:
    """Let a builder write a model to `folder`."""
    with plugin_errors(builder, "build"):
        builder.build(folder)


def prepare_model(part: Quantization | Adapter, model: nn.Module) -> None:
    """Let a quantization or an adapter change the loaded model."""
    with plugin_errors(part, "prepare_model"):
        part.prepare_model(model)


def quantization_for(adapter: Adapter, device: Device) -> str:
    """Return the quantization that an adapter asks for on a device. Raises PluginError for anything but text."""
    with plugin_errors(adapter, "quantization_for"):
        answer: object = adapter.quantization_for(device)
    name: str = checked(adapter, "quantization_for", answer, str, "the name of a quantization")
    return name


def train_defaults(adapter: Adapter, recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's options that suit an adapter. Raises PluginError for anything but a dict."""
    with plugin_errors(adapter, "train_defaults"):
        answer: object = adapter.train_defaults(read_only(recipe))
    options: dict[str, Any] = checked(adapter, "train_defaults", answer, dict, "a dict of options of `train`")
    return options


def peft_config(adapter: Adapter) -> PeftConfig | None:
    """Return the PEFT configuration of an adapter. Raises PluginError for anything else."""
    with plugin_errors(adapter, "peft_config"):
        answer: object = adapter.peft_config()
    if answer is None:
        return None
    from peft import PeftConfig

    return checked(adapter, "peft_config", answer, PeftConfig, "a peft.PeftConfig or None")


def saves_itself(adapter: Adapter) -> bool:
    """Whether an adapter is no type of PEFT and has parameters of its own, which it saves and loads itself."""
    return peft_config(adapter) is None and stands_beside(adapter)


def save_adapter(adapter: Adapter, model: nn.Module, folder: Path) -> None:
    """Let an adapter that is no type of PEFT write what it has trained."""
    with plugin_errors(adapter, "save"):
        adapter.save(model, folder)


def load_adapter(adapter: Adapter, model: nn.Module, folder: Path) -> None:
    """Let an adapter that is no type of PEFT make of the base what it has trained."""
    with plugin_errors(adapter, "load"):
        adapter.load(model, folder)


def model_problems(adapter: Adapter, model: nn.Module) -> list[str]:
    """Return what ``check_model`` of an adapter says about `model`. Raises PluginError for anything but sentences."""
    with plugin_errors(adapter, "check_model"):
        return sentences(adapter, "check_model", adapter.check_model(model))


def merge_problems(adapter: Adapter, quantization: Quantization, *, in_place: bool) -> list[str]:
    """Return why an adapter cannot be merged. Raises PluginError for anything but sentences."""
    with plugin_errors(adapter, "check_merge"):
        said = sentences(adapter, "check_merge", adapter.check_merge(quantization, in_place=in_place))
    if said or mergeable(adapter):
        return said
    how = "as its model card says" if saves_itself(adapter) else "with PEFT"
    return [f"'{adapter.type}' says that what it trains cannot be merged. Load it {how} beside the base."]


def mergeable(adapter: Adapter) -> bool:
    """Return whether an adapter can become part of the weights. Raises PluginError for anything but true or false."""
    with plugin_errors(adapter, "mergeable"):
        answer: object = adapter.mergeable
    return bool(checked(adapter, "mergeable", answer, bool, "True or False"))


def merged(adapter: Adapter, model: Any) -> PreTrainedModel:
    """Return the base of `model` with the update in its weights. Raises ModelError where the adapter cannot do that."""
    from transformers import PreTrainedModel

    with plugin_errors(adapter, "merge"):
        answer: object = adapter.merge(model)
    base: PreTrainedModel = checked(adapter, "merge", answer, PreTrainedModel, "the base model")
    return base
