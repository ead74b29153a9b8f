"""How many weights have moved at all: those that are held in 16 bits are rounded back where an update is small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftplug.types.result import MovedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

_EACH = 4096
"""So many weights of a tensor are looked at, evenly spread over it; all of a smaller one."""


class WeightSample:
    """Some of the trained 16-bit weights of a model, as they are when this is made."""

    def __init__(self, model: nn.Module) -> None:
        """Remember them: `_EACH` of each tensor at most."""
        self._model = model
        self._before = {name: _few(weight).clone() for name, weight in _trained(model)}

    def moved(self) -> MovedWeights | None:
        """Return what has become of them; None where the model has none."""
        weights = {name: weight for name, weight in _trained(self._model) if name in self._before}
        if not weights:
            return None
        shares = {name: float((_few(weight) != self._before[name]).float().mean()) for name, weight in weights.items()}
        count = sum(weight.numel() for weight in weights.values())
        share = sum(shares[name] * weight.numel() for name, weight in weights.items()) / count
        return MovedWeights(share, tuple(name for name, part in shares.items() if not part), len(weights))


def _trained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the 16-bit weights that are trained, and are whole in this process."""
    for name, weight in model.named_parameters():
        whole = not hasattr(weight, "placements") and weight.numel() > 0  # FSDP2's pieces, and what ZeRO-3 has put away
        if weight.requires_grad and weight.is_floating_point() and weight.element_size() == 2 and whole:
            yield name, weight


def _few(weight: Tensor) -> Tensor:
    flat = weight.detach().flatten()
    few: Tensor = flat[:: max(flat.numel() // _EACH, 1)]
    return few
