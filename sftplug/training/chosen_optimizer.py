"""The optimizer and the schedule that a recipe chooses, in the place of those that the trainer would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LambdaLR
from trl import SFTTrainer

from sftplug.errors import TrainingError
from sftplug.model.trained_parameters import trained_parameters
from sftplug.plugin.calls import make_optimizer, multiplier, strategies
from sftplug.plugin.calls.optimization import blaming
from sftplug.types.trained_parameters import Horizon

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer

    from sftplug.plugin.components import Optimizer, Schedule


class OptimizingTrainer(SFTTrainer):  # type: ignore[misc]
    """Updates the weights as the recipe's components say; as its own options say where the recipe names none."""

    optimizer: Any
    lr_scheduler: Any
    chosen_optimizer: Optimizer | None = None
    chosen_schedule: Schedule | None = None
    _made: TorchOptimizer | None = None
    """What the recipe's optimizer has made."""
    _scheduled = False
    """Whether the rates are those of the recipe's schedule."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Make the optimizer over the parameters that are trained, unless it is there already."""
        if self.chosen_optimizer is None or self.optimizer is not None:
            return super().create_optimizer(*args, **kwargs)
        model = next(iter([*args, *kwargs.values()]), None)
        trained = trained_parameters(self.model if model is None else model, self.args.weight_decay)
        self.optimizer = self._made = make_optimizer(self.chosen_optimizer, trained, self.args.learning_rate)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule of the learning rate, unless it is there already."""
        if self.chosen_schedule is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        horizon, schedule = Horizon(num_training_steps, warmup, self.args.learning_rate), self.chosen_schedule
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: multiplier(schedule, step, horizon))
        self._created_lr_scheduler = self._scheduled = True
        return self.lr_scheduler

    def refuse_others(self) -> None:
        """Raise TrainingError where a launcher's configuration would not use the optimizer or the schedule.

        Called when training begins.
        """
        optimizer, schedule = self.chosen_optimizer, self.chosen_schedule
        if optimizer is not None and self._made is None:
            raise TrainingError(f"{_OWN} an optimizer, and the recipe's '{optimizer.type}' {_LEAVE_OUT}")
        if schedule is not None and not self._scheduled:
            raise TrainingError(f"{_OWN} a schedule, and the recipe's '{schedule.type}' {_LEAVE_OUT}")
        if optimizer is not None and self.is_deepspeed_enabled and "zero2" not in strategies(optimizer):
            raise TrainingError(
                f"DeepSpeed makes one long vector of the parameters, and optimizer '{optimizer.type}' does not work on "
                "it. Use another launcher, such as `launch: ddp`."
            )

    # --- the weights that are evaluated and saved ---------------------------------------------------------------------

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save the weights as inference is to have them: those of a schedule-free optimizer are a mean."""
        self._settle()
        super().save_model(*args, **kwargs)

    def _load_best_model(self) -> None:
        """Give the model back what it was; the optimizer is not to change that again."""
        self._settle()
        super()._load_best_model()

    def _settle(self) -> None:
        """Put an optimizer that has two sets of weights into the mode for inference; training puts it back."""
        if callable(settle := getattr(self.optimizer, "eval", None)):
            settle()

    @contextmanager
    def blaming_optimizer(self) -> Iterator[None]:
        """Name the component where something goes wrong inside of its optimizer."""
        with blaming(self.chosen_optimizer, lambda: self._made):
            yield


_OWN = "the configuration of DeepSpeed that the launcher brings holds"
_LEAVE_OUT = "would not be used. Take it out of that configuration, or out of the recipe."


def reschedule(scheduler: Any) -> tuple[float, float] | None:
    """Give the optimizer the rates that the schedule of a longer run has at this update; return one before and after.

    A checkpoint brings those of the shorter one: at its end, 0 where the rate decays to that. None for a schedule
    that does not know how long the run is.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)  # accelerate puts its own around it
    if not isinstance(schedule, LambdaLR):
        return None
    groups = schedule.optimizer.param_groups
    before = float(groups[0]["lr"])
    rates = [base * at(schedule.last_epoch) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
    return before, float(rates[0])
