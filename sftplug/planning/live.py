"""Count the bytes of all tensors that are alive while a model's code runs, in sections."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class MemorySection:
    """A stretch of a forward or backward pass; bytes are counted from where it begins."""

    name: str
    grown: int
    """How many more bytes there are at its end."""
    peak: int
    """How many more there are at its most crowded moment."""
    flops: float
    """Operations of matrix products."""


def highest(sections: Iterable[MemorySection]) -> int:
    """Return the most bytes that are alive when the sections follow each other."""
    # One that peaks at 10 and leaves 4, and then one that peaks at 8: 12 at most, in the second.
    level = most = 0
    for section in sections:
        most = max(most, level + section.peak)
        level += section.grown
    return most


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types no such classes
    """Counts the bytes of all tensors that are made while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.sections: list[MemorySection] = []
        self._begin, self._most, self._flops = 0, 0, 0.0
        self._known: dict[int, int] = {}

    def cut(self, name: str) -> None:
        """End a section here, and call it so."""
        self.sections.append(MemorySection(name, self.bytes - self._begin, self._most - self._begin, self._flops))
        self._begin, self._most, self._flops = self.bytes, self.bytes, 0.0

    @property
    def grown(self) -> int:
        """Return how many more bytes there are than where this section began."""
        return self.bytes - self._begin

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        # Torch's own mode for this holds on to the activations that checkpointing computes again.
        formula = _FORMULAS.get(function._overloadpacket)
        if formula is not None:
            self._flops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in _tensors(result if isinstance(result, tuple | list) else (result,)):
            # A view shares the storage of what it is a view of, and takes no bytes of its own: `x[:, 1:]`, `x.t()`.
            key = tensor.untyped_storage()._cdata
            if key not in self._known and all(key != other.untyped_storage()._cdata for other in _tensors(args)):
                self._count(tensor, key)
        return result

    def _count(self, tensor: Tensor, key: int) -> None:
        storage = tensor.untyped_storage()
        self._known[key] = storage.nbytes()
        self.bytes += self._known[key]
        self._most = max(self._most, self.bytes)
        # A storage lives as long as any tensor that looks into it, or a graph that has saved one.
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes -= self._known.pop(key)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among what an operator takes or gives; lists of tensors are the most it nests."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    """Two products, of queries with keys and of weights with values."""
    batch, heads, length, width = query.shape
    return 2 * batch * heads * length * key.shape[2] * (width + value.shape[3])


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    """Five products: the weights again, and a gradient for each of the two that went into each product."""
    batch, heads, length, width = query.shape
    return 2 * batch * heads * length * key.shape[2] * (3 * width + 2 * value.shape[3])


_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operations of matrix products: torch's table, and its attention on CPUs, which that leaves out."""
