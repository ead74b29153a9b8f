"""Count the weights, exactly: on the meta device, with the adapter really in the model, and nothing loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError, SftplugError
from sftplug.libraries.optimizer_state import Trained
from sftplug.model.loading import check_model, new_ids, skeleton
from sftplug.model.new_tokens import resize_embeddings, train_new_embeddings
from sftplug.model.parameters import count_parameters
from sftplug.model.reach import kinds_of
from sftplug.model.structure import ModelStructure, structure_of
from sftplug.model.teacher import with_teacher_as_model
from sftplug.model.tied_embeddings import parted
from sftplug.plugin.calls import load_kwargs, peft_config, prepare_model, quantized_names, weight_bytes
from sftplug.plugin.components import Quantization
from sftplug.types.result import ParameterCounts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.planning.settings import Settings
    from sftplug.recipe.model import Recipe


@dataclass(frozen=True, slots=True)
class HeldParameter(Trained):
    """A parameter as it is held in memory."""

    in_base: bool
    """Whether it is one of the base model's; else the adapter has brought it."""
    trained: bool
    layer: int | None
    """Which decoder layer it is in; None for embeddings, last norm and head."""


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The model as it is held in memory."""

    held: tuple[HeldParameter, ...]
    """All parameters; a tied head counts once."""
    buffers: int
    """Bytes of what is not a parameter."""
    constants: int
    """The most bytes of quantization constants that the backend does not count itself; 0 when it does."""
    quantized: bool
    """Whether the backend quantizes any of them here."""
    size: ParameterCounts = field(default_factory=lambda: ParameterCounts(0, 0, 0, {}))
    """What is trained, and what is not."""
    routers: tuple[str, ...] = ()
    """Routers of experts that are trained."""
    parted: int = 0
    """Parameters of a head that shares them with the embeddings, and won't in the merged model."""

    @property
    def base(self) -> int:
        """Return the bytes of the base model: weights, quantization constants, buffers."""
        return sum(tensor.bytes for tensor in self.held if tensor.in_base) + self.buffers

    @property
    def adapter(self) -> int:
        """Return the bytes of what the adapter adds."""
        return sum(tensor.bytes for tensor in self.held if not tensor.in_base)

    @property
    def total(self) -> int:
        """Return how many parameters there are; a 4-bit weight counts as one."""
        return sum(tensor.count for tensor in self.held)

    @property
    def trained(self) -> tuple[HeldParameter, ...]:
        """Return the parameters that are trained."""
        return tuple(tensor for tensor in self.held if tensor.trained)

    @property
    def trainable(self) -> int:
        """Return how many parameters are trained."""
        return sum(tensor.count for tensor in self.trained)

    @property
    def gradients(self) -> int:
        """Return the bytes of all gradients: each has the type of its weight."""
        return sum(tensor.bytes for tensor in self.trained)


def count_weights(recipe: Recipe, settings: Settings) -> tuple[nn.Module, ModelWeights]:
    """Return the model without weights, the adapter in it, and what it takes; quantized layers are stand-ins.

    Raises ModelError when the adapter does not fit the model, or cannot be put into one without weights.
    """
    problems = check_model(recipe)
    if problems:
        raise ModelError("the adapter does not fit the model:\n" + "\n".join(f"  {text}" for text in problems))
    from sftplug.planning.products import patch_quantized_linears

    model = _skeleton(recipe, settings)
    quantized = _quantized(recipe, settings, model)
    # Taken down before the adapter comes, which gives parameters other names: by `id` they are known again.
    base = {id(parameter): quantized.get(name) for name, parameter in model.named_parameters()}
    constants = _constants(recipe, model, quantized)
    _keep_in_fp32(model, settings)
    structure = structure_of(model)
    kinds_of(model)  # while nothing of the adapter is in it
    for name, parameter in model.named_parameters():
        if name in quantized:
            parameter.held_as = recipe.quantization.type  # what `parts_of` tells
    float_experts = _float_experts(model, structure, quantized)
    adapted = _with_adapter(recipe, model)
    size = replace(count_parameters(adapted), float_experts=float_experts)
    packed = {id(parameter) for parameter in adapted.parameters() if base.get(id(parameter)) is not None}
    patch_quantized_linears(adapted, packed, keeps_inputs=recipe.quantization.keeps_inputs)
    buffers = {id(buffer): _bytes(buffer) for buffer in model.buffers()}
    tables = {id(weight) for weight in _embeddings(adapted)}
    layers = _layers(model)
    return adapted, ModelWeights(
        held=tuple(
            HeldParameter(
                tuple(parameter.shape),
                base.get(id(parameter)) or _bytes(parameter),
                id(parameter) in tables,
                in_base=id(parameter) in base,
                trained=parameter.requires_grad,
                layer=layers.get(id(parameter)),
            )
            for parameter in adapted.parameters()
        ),
        buffers=sum(buffers.values()),
        constants=constants,
        quantized=bool(packed),
        size=size,
        routers=tuple(_trained_routers(adapted, structure)),
        parted=head.weight.numel() if (head := parted(model)) is not None else 0,
    )


def count_teacher(recipe: Recipe, settings: Settings) -> tuple[nn.Module | None, int]:
    """Return the teacher of the recipe's loss on the meta device, and the bytes of its weights; None and 0 without one.

    It is held unquantized, in the type that the quantization computes in.
    """
    other = with_teacher_as_model(recipe)
    if other is None:
        return None, 0
    teacher = _skeleton(other, settings)
    teacher.requires_grad_(False)
    teacher.eval()
    return teacher, sum(map(_bytes, [*teacher.parameters(), *teacher.buffers()]))


def _float_experts(model: nn.Module, structure: ModelStructure, quantized: Mapping[str, int]) -> int:
    """Return the bytes of experts that a backend leaves as they are: most quantize linear layers and nothing else."""
    held = dict(model.named_parameters(remove_duplicate=False))
    return sum(_bytes(held[name]) for name in structure.experts if name in held) if quantized else 0


def _trained_routers(model: nn.Module, structure: ModelStructure) -> Iterator[str]:
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    yield from (router for router in sorted(structure.routers) if any(f"{router}." in name for name in trained))


def _layers(model: Any) -> dict[int, int]:
    """Return the ``id`` of each parameter -> the decoder layer it is in."""
    from torch import nn

    count = model.config.get_text_config().num_hidden_layers
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return {
        id(parameter): index
        for stack in stacks
        for index, layer in enumerate(stack)
        for parameter in layer.parameters()
    }


def _skeleton(recipe: Recipe, settings: Settings) -> Any:
    """Return the model on the meta device. FlashAttention need not be installed: it keeps as much as sdpa does."""
    attention = recipe.model.attn_implementation
    options = {"attn_implementation": "sdpa" if "flash" in attention else attention} if attention else {}
    model = skeleton(recipe, dtype=settings.dtype, **options)
    if recipe.model.add_tokens:
        resize_embeddings(model, new_ids(recipe))
    return model


def _quantized(recipe: Recipe, settings: Settings, model: nn.Module) -> dict[str, int]:
    """Return the name of each quantized parameter -> its bytes."""
    kind, backend = recipe.quantization.type, type(recipe.quantization)
    if backend.quantized is Quantization.quantized and "quantization_config" not in load_kwargs(recipe.quantization):
        return {}
    try:
        names = quantized_names(recipe.quantization, _skeleton(recipe, settings))
    except SftplugError:
        raise
    except Exception as error:  # quantizers fail in ways of their own where a library or a device is missing
        text = f"quantization {kind} cannot say what it quantizes without loading the model: {_first_line(error)}"
        raise ModelError(text) from error
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    unknown = sorted(names - shapes.keys())
    if unknown:
        raise ModelError(f"quantization {kind} says that it quantizes {unknown[0]}, which the model does not have")
    return {name: weight_bytes(recipe.quantization, shapes[name]) for name in names}


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
    from sftplug.training.train import keep_adapter_in_fp32

    prepare_model(recipe.adapter, model)
    config = peft_config(recipe.adapter)
    if config is None:
        trained: nn.Module = model
        return trained
    import torch
    from peft import get_peft_model

    if recipe.model.add_tokens:
        train_new_embeddings(config, model, new_ids(recipe))
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
