"""Several optimizers as one, each for parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer


def together(parts: Sequence[Optimizer], learning_rate: float) -> Optimizer:
    """Return an optimizer whose step is that of each of `parts` on its own groups; its state is that of all."""
    made: Optimizer = _class()(parts, learning_rate)
    return made


@cache
def _class() -> Callable[..., Any]:
    """Return the class; torch is not imported before one is made."""
    import torch

    class Together(torch.optim.Optimizer):
        def __init__(self, parts: Sequence[Optimizer], learning_rate: float) -> None:
            self._parts = parts
            groups = [{**group, "part": number} for number, part in enumerate(parts) for group in part.param_groups]
            super().__init__(groups, {"lr": learning_rate})

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            for number, part in enumerate(self._parts):
                # Whoever reads a checkpoint or shares parameters out puts new groups and a new state in place.
                part.param_groups = [group for group in self.param_groups if group["part"] == number]
                part.state = self.state
                part.step()

    return Together
