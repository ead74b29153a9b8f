"""What the optimizers that transformers knows by name keep for each tensor that is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftplug.types.trained_parameters import TrainedParameters

_BLOCK = 256
"""8-bit states that share one scale (`bitsandbytes`)."""
_SMALL = 4096
"""Tensors with fewer numbers keep a 32-bit state (`bitsandbytes`, `min_8bit_size`)."""
_TABLE = 4 * 256
"""The values that an 8-bit state can have; one table for signed states, one for unsigned."""


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


def known_state_bytes(name: str, trained: TrainedParameters) -> int | None:
    """Return the bytes that an optimizer of transformers keeps from its first update on; None where that is not known.

    `name` is one of transformers' ``optim``.
    """
    return state_bytes(
        name,
        [
            Trained(
                tuple(parameter.value.shape), parameter.value.numel() * parameter.value.element_size(), parameter.table
            )
            for parameter in trained.parameters
        ],
    )


def state_bytes(name: str, trained: Iterable[Trained]) -> int | None:
    """Return the same of tensors."""
    rule, tensors = _RULES.get(name), list(trained)
    if rule is None:
        return None
    tables = _TABLE * _TABLES.get(name, 0) if any(_is_8bit(tensor) for tensor in tensors) else 0
    return sum(rule(tensor) for tensor in tensors) + tables


def _torch(states: int) -> Callable[[Trained], int]:
    """States in the weight's own type, and the number of the step in 32 bits."""
    return lambda tensor: states * tensor.bytes + 4


def _nothing(tensor: Trained) -> int:
    return 0


def _adafactor(tensor: Trained) -> int:
    """A 32-bit mean a row and a column (Shazeer and Stern 2018, arXiv:1804.04235); of vectors, one a number.

    Beside them the weight's own mean square.
    """
    if len(tensor.shape) < 2:
        return 4 * tensor.count + 4
    # Experts in one tensor, (8, 64, 32), are 8 matrices: 8 x (64 + 32) means.
    *lead, rows, columns = tensor.shape
    return 4 * math.prod(lead) * (rows + columns) + 4


def _bits32(states: int) -> Callable[[Trained], int]:
    return lambda tensor: 4 * states * tensor.count


def _bits8(states: int) -> Callable[[Trained], int]:
    """A byte a number, and a 32-bit scale a block (Dettmers et al. 2021, arXiv:2110.02861)."""

    def rule(tensor: Trained) -> int:
        if not _is_8bit(tensor):
            return 4 * states * tensor.count
        return states * (tensor.count + 4 * math.ceil(tensor.count / _BLOCK))

    return rule


def _is_8bit(tensor: Trained) -> bool:
    # transformers has bitsandbytes keep a 32-bit state for the weights of `nn.Embedding`.
    return tensor.count >= _SMALL and not tensor.embedding


_RULES: Mapping[str, Callable[[Trained], int]] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused"), _torch(2)),
    **dict.fromkeys(("adagrad", "rmsprop"), _torch(1)),
    "sgd": _nothing,
    "adafactor": _adafactor,
    "paged_adamw_32bit": _bits32(2),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), _bits8(2)),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit", "rmsprop_bnb", "rmsprop_bnb_32bit"), _bits32(1)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), _bits8(1)),
    **dict.fromkeys(("ademamix", "paged_ademamix_32bit"), _bits32(3)),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), _bits8(3)),
}
_TABLES: Mapping[str, int] = {
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "ademamix_8bit", "paged_ademamix_8bit"), 2),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), 1),
}
KNOWN = tuple(sorted(_RULES))
"""The optimizers whose state is known exactly."""
