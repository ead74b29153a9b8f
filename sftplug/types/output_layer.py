"""The output layer of a model: what a head makes the losses of tokens with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class OutputLayer:
    """The layer that makes logits of last hidden states, with V tokens in the vocabulary and states of width H."""

    weight: Tensor
    """(V, H), often the table of embeddings too; trained if its ``requires_grad`` says so."""
    bias: Tensor | None = None
    """(V,)."""
    scale: float = 1.0
    """What the model multiplies the products by, as Cohere and Granite do."""
    softcap: float | None = None
    """``softcap * tanh(logits / softcap)`` is done to the scaled products, as Gemma 2 does; None for nothing."""

    def logits(self, states: Tensor) -> Tensor:
        """Return (N, V) float32 the logits of (N, H) `states`."""
        from torch.nn import functional

        return self.finished(functional.linear(states, self.weight, self.bias)).float()

    def finished(self, products: Tensor) -> Tensor:
        """Return logits of what the layer's product with the states is."""
        scaled = products if self.scale == 1.0 else products * self.scale
        return scaled if self.softcap is None else self.softcap * (scaled / self.softcap).tanh()
