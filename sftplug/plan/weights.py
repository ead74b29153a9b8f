"""Count the weights, exactly: on the meta device, with the adapter really in the model, and nothing loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.models import skeleton

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
        return _product(self.shape)


@dataclass(frozen=True, slots=True)
class Weights:
    """The model as it is held in memory."""

    base: int
    """Bytes of the base model: weights, quantization constants, buffers; a tied head counts once."""
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
    model = _skeleton(recipe, settings)
    problems = list(recipe.adapter.check_model(model))
    if problems:
        raise ModelError("the adapter does not fit the model:\n" + "\n".join(f"  {text}" for text in problems))
    quantized = _quantized(recipe, settings, model)
    base = {id(parameter): quantized.get(name) for name, parameter in model.named_parameters()}
    _keep_in_fp32(model, settings)
    adapted = _with_adapter(recipe, model)
    sizes = {id(parameter): base.get(id(parameter)) or _bytes(parameter) for parameter in adapted.parameters()}
    buffers = {id(buffer): _bytes(buffer) for buffer in model.buffers()}
    in_base = sum(size for key, size in sizes.items() if key in base)
    tables = {id(weight) for weight in _embeddings(adapted)}
    return adapted, Weights(
        base=in_base + sum(buffers.values()),
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
    names = recipe.quantization.quantized(_skeleton(recipe, settings))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    unknown = sorted(names - shapes.keys())
    if unknown:
        kind = recipe.quantization.type
        raise ModelError(f"quantization {kind} says that it quantizes {unknown[0]}, which the model does not have")
    return {name: recipe.quantization.weight_bytes(shapes[name]) for name in names}


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

    config = recipe.adapter.peft_config()
    if config is None:
        recipe.adapter.prepare_model(model)
        trained: nn.Module = model
        return trained
    import torch
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            adapted: nn.Module = get_peft_model(model, config)
    except (NotImplementedError, RuntimeError) as error:
        kind = recipe.adapter.type
        text = f"adapter {kind}: cannot be counted, because it computes with weights when it is made: {error}"
        raise ModelError(text) from error
    keep_adapter_in_fp32(adapted)
    return adapted


def _embeddings(model: nn.Module) -> Iterator[Tensor]:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield module.weight


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
