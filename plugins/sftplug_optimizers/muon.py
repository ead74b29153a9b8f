"""Muon: updates of matrices that are orthogonal."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from sftplug import Field, MissingLibraryError, Optimizer, TrainedParameters, require
from sftplug_optimizers.together import together

if TYPE_CHECKING:
    from torch import optim

    from sftplug import Recipe

_SINCE = (2, 9)
"""The first torch that has Muon."""


class Muon(Optimizer):
    """Muon for the matrices within the model, AdamW for the rest: embeddings, head, vectors.

    The update of a matrix is its momentum made orthogonal, by five steps of a Newton-Schulz iteration (Keller Jordan et
    al. 2024, https://kellerjordan.github.io/posts/muon), as `torch.optim.Muon` has it, from torch 2.9 on. It keeps one
    number for each of the matrix, half as many as AdamW.
    """

    type: Literal["muon"] = "muon"
    momentum: float = Field(0.95, ge=0.0, lt=1.0)
    """Share of the momentum that is left after an update."""
    nesterov: bool = True
    """Look a step ahead along the momentum."""
    ns_steps: int = Field(5, ge=1, lt=100)
    """Newton-Schulz iterations."""
    adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """What the rate of a matrix of A rows and B columns is multiplied by. ``match_rms_adamw``: 0.2 times the root of
    the larger of A and B, so that updates are as large as those of AdamW and one rate does for both (Liu et al. 2025,
    arXiv:2502.16982). ``original``: the root of A / B, at least 1, as by Jordan, whose rates are about 0.02."""
    adamw_learning_rate: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    """Rate of what AdamW updates; null is ``train.learning_rate``, as for the matrices."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """AdamW's share of the mean of gradients that is left after an update."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """The same of the mean of their squares."""
    epsilon: float = Field(1e-8, gt=0.0, allow_inf_nan=False)
    """What AdamW adds to the root of that."""

    @property
    def adam_like(self) -> bool:  # type: ignore[override]
        """Whether matrices get updates as large as AdamW's."""
        return self.adjust == "match_rms_adamw"

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so where torch is too old, and where one rate cannot do for both."""
        if (problem := _too_old()) is not None:
            yield problem
        if not self.adam_like and self.adamw_learning_rate is None:
            yield (
                "`adjust: original` wants rates that are far too high for AdamW, which updates the rest. Set "
                "`adamw_learning_rate: 2e-4`, for one, beside it."
            )

    def optimizer(self, trained: TrainedParameters, learning_rate: float) -> optim.Optimizer:
        """Return one that updates the matrices with Muon and all else with AdamW."""
        if (problem := _too_old()) is not None:
            raise MissingLibraryError(f"optimizer muon: {problem}")
        torch = require("torch", needed_by="optimizer muon")
        matrices = trained.groups(p for p in trained.parameters if p.is_hidden_matrix)
        rest = trained.groups(p for p in trained.parameters if not p.is_hidden_matrix)
        parts = []
        if matrices:
            options = {"momentum": self.momentum, "nesterov": self.nesterov, "ns_steps": self.ns_steps}
            parts.append(torch.optim.Muon(matrices, lr=learning_rate, adjust_lr_fn=self.adjust, **options))
        if rest:
            rate = self.adamw_learning_rate or learning_rate
            parts.append(torch.optim.AdamW(rest, lr=rate, betas=(self.beta1, self.beta2), eps=self.epsilon))
        return together(parts, learning_rate)


def _too_old() -> str | None:
    found = version("torch")
    if tuple(int(part) for part in found.split(".")[:2]) >= _SINCE:
        return None
    wanted = ".".join(map(str, _SINCE))
    return f"torch has Muon from {wanted} on, and this is torch {found}. Run: pip install 'torch>={wanted}'"
