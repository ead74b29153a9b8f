"""Kinds that say how weights are updated: the optimizer, and the schedule of its learning rate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from torch import optim

    from sftplug.recipe.model import Recipe
    from sftplug.types.trained_parameters import Horizon, TrainedParameters


class Optimizer(Component):
    """Updates the weights by their gradients. A recipe that names one says nothing in ``train.optim`` and its options.

    The core gives it the parameters and the learning rate, clips gradients, sets the rate of every group as the
    schedule says, and keeps its state in checkpoints. One with methods ``train`` and ``eval``, as schedule-free ones
    have, is put into the one mode before each batch, and into the other before weights are evaluated or saved.
    """

    adam_like: ClassVar[bool] = True
    """Whether its updates have the size of Adam's: then the rate that suits an adapter suits it too. Else the recipe
    gets the rate of `train_defaults`, or TRL's own."""
    decays: ClassVar[bool] = True
    """Whether it obeys the ``weight_decay`` of its groups; ``train.weight_decay`` is refused where it does not."""
    resumable: ClassVar[bool] = True
    """Whether its `state_dict` holds all that it remembers: then a run that is resumed is the same to the bit. Where it
    does not, runs that save checkpoints to resume from are refused."""
    constant_rate: ClassVar[bool] = False
    """Whether it is made for a rate that stays what it is after the warmup: then recipes get
    ``lr_scheduler_type: constant_with_warmup``, and a schedule that lets the rate fall is refused."""
    strategies: ClassVar[tuple[str, ...]] = ("ddp", "fsdp2")
    """The values of ``launch.strategy`` it works with. In these two parameters keep their shapes; ``zero2`` and
    ``zero3`` make one long vector of them, for optimizers that look at each number by itself."""

    def train_defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return options of the ``train`` section that suit it, such as its ``learning_rate``.

        What the recipe says itself comes first, then what its callbacks mean, then this, then what suits the adapter.
        Must be quick and must not import a heavy library.
        """
        return {}

    @abstractmethod
    def optimizer(self, trained: TrainedParameters, learning_rate: float) -> optim.Optimizer:
        """Return torch's optimizer of all `trained` parameters, each in one of its groups.

        Every group has the rate as its ``lr``. Raises ModelError or MissingLibraryError for what cannot be had here.
        """

    def state_bytes(self, trained: TrainedParameters) -> int | None:
        """Return the bytes that it keeps of `trained` from its first update on, for `sftplug plan`.

        The parameters have shape and type and no numbers (torch's meta device). By default None: then it is made, and
        the state counted after an update of such parameters; what cannot take one is not known.
        """
        return None


class Schedule(Component):
    """Says which share of the learning rate each update has.

    A recipe that names one says nothing in ``train.lr_scheduler_type`` and its options.
    """

    warms_up: ClassVar[bool] = True
    """Whether it obeys `Horizon.warmup`; ``train.warmup_steps`` is refused where it does not."""

    @abstractmethod
    def multiplier(self, step: int, horizon: Horizon) -> float:
        """Return what the rate of an update is multiplied by: a finite number, 0 or more.

        `step` is the number of updates before it: 0 for the first, ``horizon.steps`` when all are done. It must depend
        on nothing else, so that a resumed run has the same rates.
        """
