"""Products with quantized weights, as far as memory goes: what is there for a moment, and what is kept.

Nearly every backend unpacks a whole weight to multiply with it, forward and backward, and keeps nothing. Some keep
their input in a way that checkpointing cannot undo, which `Quantization.keeps_inputs` says.
"""

from __future__ import annotations

from collections.abc import Set
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def patch_quantized_linears(model: nn.Module, quantized: Set[int], *, keeps_inputs: bool) -> None:
    """Let linear layers of `model` whose weight is `quantized`, by its ``id``, multiply as a backend does."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) in quantized:
            vars(module)["forward"] = partial(_forward, module, keeps_inputs)


def _forward(module: nn.Linear, keeps_inputs: bool, inputs: Tensor) -> Tensor:
    kind = module.weight.dtype
    result: Tensor = _Unpacked.apply(  # type: ignore[no-untyped-call]  # torch types no such method
        inputs.to(kind), module.weight, module.bias, keeps_inputs
    )
    return result.to(inputs.dtype)


class _Unpacked(torch.autograd.Function):
    """A product with a weight that is unpacked for it, and once more for its gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, keeps_inputs: bool) -> Tensor:
        # Checkpointing sees what is saved with `save_for_backward`; backends that keep their input set an attribute.
        ctx.inputs = inputs if keeps_inputs else None
        ctx.weight = weight
        return functional.linear(inputs, torch.empty_like(weight), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0] @ torch.empty_like(ctx.weight), None, None, None
