"""Count the weights, exactly: on the meta device, with the adapter really in the model, and nothing loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.answers import peft_config
from sftplug.blame import blaming
from sftplug.components import Quantization
from sftplug.errors import ModelError, SftplugError
from sftplug.models import check_model, skeleton

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.plan.settings import Settings
    from sftplug.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Trained:
    """A tensor that is trained."""

    shape: tuple[int, ...]
    bytes: int
    embedding: bool
    """Whether it is the table of an embedding, for which some optimizers keep another state."""

    @property
    def count(self) -> int:
        """Return how many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Weights:
    """The model as it is held in memory."""

    base: int
    """Bytes of the base model: weights, quantization constants, buffers; a tied head counts once."""
    constants: int
    """The most bytes of quantization constants that the backend does not count itself; 0 when it does."""
    adapter: int
    """Bytes of what the adapter adds."""
    total: int
    """Parameters in all; a 4-bit weight counts as one."""
    trained: tuple[Trained, ...]
    unpacked: int
    """Bytes of the largest quantized weight when it is unpacked to be multiplied."""

    @property
    def trainable(self) -> int:
        """Return how many parameters are trained."""
        return sum(tensor.count for tensor in self.trained)

    @property
    def gradients(self) -> int:
        """Return the bytes of all gradients: each has the type of its weight."""
        return sum(tensor.bytes for tensor in self.trained)


def count_weights(recipe: Recipe, settings: Settings) -> tuple[nn.Module, Weights]:
    """Return the model without weights, the adapter in it, and what it takes.

    Raises ModelError when the adapter does not fit the model, or cannot be put into one without weights.
    """
    problems = check_model(recipe)
    if problems:
        raise ModelError("the adapter does not fit the model:\n" + "\n".join(f"  {text}" for text in problems))
    model = _skeleton(recipe, settings)
    quantized = _quantized(recipe, settings, model)
    base = {id(parameter): quantized.get(name) for name, parameter in model.named_parameters()}
    constants = _constants(recipe, model, quantized)
    _keep_in_fp32(model, settings)
    adapted = _with_adapter(recipe, model)
    sizes = {id(parameter): base.get(id(parameter)) or _bytes(parameter) for parameter in adapted.parameters()}
    buffers = {id(buffer): _bytes(buffer) for buffer in model.buffers()}
    in_base = sum(size for key, size in sizes.items() if key in base)
    tables = {id(weight) for weight in _embeddings(adapted)}
    return adapted, Weights(
        base=in_base + sum(buffers.values()),
        constants=constants,
        adapter=sum(sizes.values()) - in_base,
        total=sum(parameter.numel() for parameter in adapted.parameters()),
        trained=tuple(
            Trained(tuple(parameter.shape), _bytes(parameter), id(parameter) in tables)
            for parameter in adapted.parameters()
            if parameter.requires_grad
        ),
        unpacked=max((_bytes(p) for p in adapted.parameters() if base.get(id(p)) is not None), default=0),
    )


def _skeleton(recipe: Recipe, settings: Settings) -> Any:
    """Return the model on the meta device. FlashAttention need not be installed: it keeps as much as sdpa does."""
    attention = recipe.model.attn_implementation
    options = {"attn_implementation": "sdpa" if "flash" in attention else attention} if attention else {}
    return skeleton(recipe, dtype=settings.dtype, **options)


def _quantized(recipe: Recipe, settings: Settings, model: nn.Module) -> dict[str, int]:
    """Return the name of each quantized parameter -> its bytes."""
    kind = recipe.quantization.type
    try:
        names = recipe.quantization.quantized(_skeleton(recipe, settings))
    except SftplugError:
        raise
    except Exception as error:  # quantizers fail in ways of their own where a library or a device is missing
        text = f"quantization {kind} cannot say what it quantizes without loading the model: {_first_line(error)}"
        raise ModelError(text) from error
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    unknown = sorted(names - shapes.keys())
    if unknown:
        raise ModelError(f"quantization {kind} says that it quantizes {unknown[0]}, which the model does not have")
    return {name: recipe.quantization.weight_bytes(shapes[name]) for name in names}


_CONSTANTS = 0.125
"""Bytes a weight that scales and zero points take at most: one of each in 32 bits for every 64 weights; assumed."""


def _constants(recipe: Recipe, model: nn.Module, quantized: Mapping[str, int]) -> int:
    """Return how many bytes the backend may leave out that says nothing but `bits`."""
    backend = type(recipe.quantization)
    if backend.weight_bytes is not Quantization.weight_bytes:
        return 0
    if vars(Quantization)["bytes_per_parameter"] is not getattr(backend, "bytes_per_parameter", None):
        return 0
    count = sum(parameter.numel() for name, parameter in model.named_parameters() if name in quantized)
    return math.ceil(_CONSTANTS * count)


def _keep_in_fp32(model: Any, settings: Settings) -> None:
    """Hold in 32 bits what transformers holds in 32 bits whatever is asked for: a few models name such modules."""
    import torch

    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if settings.dtype == torch.float16:
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, parameter in model.named_parameters():
        if names & set(name.split(".")):
            parameter.data = parameter.data.float()


def _with_adapter(recipe: Recipe, model: Any) -> nn.Module:
    """Put the adapter into the model, and hold what it trains in the type that training holds it in."""
    from sftplug.training import keep_adapter_in_fp32

    with blaming(recipe.adapter, "prepare_model"):
        recipe.adapter.prepare_model(model)
    config = peft_config(recipe.adapter)
    if config is None:
        trained: nn.Module = model
        return trained
    import torch
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            adapted: nn.Module = get_peft_model(model, config)
    except Exception as error:  # PEFT's types fail on weights without numbers in ways of their own
        raise ModelError(
            f"adapter {recipe.adapter.type} cannot be counted without the model's weights: {_first_line(error)}"
        ) from error
    keep_adapter_in_fp32(adapted)
    return adapted


def _first_line(error: Exception) -> str:
    """Return what went wrong in a line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
