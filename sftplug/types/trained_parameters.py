"""What an optimizer updates, and what a schedule knows of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module, Parameter


@dataclass(frozen=True, slots=True)
class TrainedParameter:
    """A parameter that is trained."""

    name: str
    """Its name in the model, as `torch.nn.Module.named_parameters` has it."""
    value: Parameter
    decays: bool
    """Whether weight decay is for it: for all but biases and the weights of norms, as transformers' trainer has it."""
    table: bool
    """Whether it is in the embeddings or in the head, which hold a row for each token."""

    @property
    def is_hidden_matrix(self) -> bool:
        """Whether it is the matrix of a linear layer within the model: what optimizers of matrices are made for."""
        return self.value.ndim == 2 and not self.table


@dataclass(frozen=True, slots=True)
class TrainedParameters:
    """All parameters that are trained, each once, in the order of the model.

    AdamW over them is a line::

        def optimizer(self, trained, learning_rate):
            return torch.optim.AdamW(trained.groups(), lr=learning_rate)
    """

    parameters: tuple[TrainedParameter, ...]
    weight_decay: float
    """What ``train.weight_decay`` says; `groups` puts it where it belongs."""
    model: Module
    """The model that they are in, adapter and all."""

    def groups(self, some: Iterable[TrainedParameter] | None = None, **options: Any) -> list[dict[str, Any]]:
        """Return torch's parameter groups of all parameters, or of `some`: those that decay, and those that do not.

        `options` are put into each group. A group that would be empty is left out.
        """
        chosen = self.parameters if some is None else tuple(some)
        apart = [([p.value for p in chosen if p.decays is decays], decays) for decays in (True, False)]
        return [
            {**options, "params": values, "weight_decay": self.weight_decay if decays else 0.0}
            for values, decays in apart
            if values
        ]


@dataclass(frozen=True, slots=True)
class Horizon:
    """How long a run is, as a schedule of its learning rate sees it."""

    steps: int
    """Updates in all."""
    warmup: int
    """Updates at the beginning over which the rate rises, as ``train.warmup_steps`` says; 0 for no warmup."""
    learning_rate: float
    """What ``train.learning_rate`` says."""
