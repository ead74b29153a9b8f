"""What all schedules of transformers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from sftplug import Horizon, ModelError, Schedule, set_options

if TYPE_CHECKING:
    from sftplug import Recipe

EITHER = ("min_lr", "min_lr_rate")
"""Options of the same meaning: transformers takes one of them, and fails without."""

_BY_METRIC = "its rate depends on what evaluations measure, and that of a schedule on the number of updates alone."


class LibrarySchedule(Schedule):
    """A schedule of transformers: its options are transformers', and what is left out is left to it."""

    function: ClassVar[Callable[[], Callable[..., Any]]]
    """Imports and returns transformers' function."""
    remake: ClassVar[Callable[[dict[str, Any]], LibrarySchedule]]
    """Returns a schedule of this name, with options."""
    lengths: ClassVar[frozenset[str]]
    """What the function is told of the run."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was set: the class is made, and so it cannot be imported where the copy is read."""
        return type(self).remake, (self.model_dump(by_alias=True, exclude_unset=True),)

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when it needs an option, and when its rate depends on more than the number of updates."""
        given = [name for name in EITHER if getattr(self, name, None) is not None]
        if set(EITHER) <= type(self).model_fields.keys() and len(given) != 1:
            yield f"needs one of `{EITHER[0]}` and `{EITHER[1]}`, such as `{EITHER[1]}: 0.1`."
        if not self.lengths:
            yield f"{_BY_METRIC} Leave `schedule` out, and set `train.lr_scheduler_type: {self.type}`."

    def multiplier(self, step: int, horizon: Horizon) -> float:
        """Return what transformers' function says. Raises ModelError where it refuses the options."""
        if not self.lengths:
            raise ModelError(f"schedule {self.type}: {_BY_METRIC}")
        options = set_options(self, leave_out=frozenset({"type"}))
        return float(_function_of(type(self), tuple(sorted(options.items())), horizon)(step))


@lru_cache(maxsize=16)
def _function_of(
    component: type[LibrarySchedule], options: tuple[tuple[str, Any], ...], horizon: Horizon
) -> Callable[[int], float]:
    """Return the multiplier by step that transformers' function gives to torch."""
    import torch

    told: Mapping[str, int] = {"num_warmup_steps": horizon.warmup, "num_training_steps": horizon.steps}
    given = {name: value for name, value in told.items() if name in component.lengths}
    if "num_stable_steps" in dict(options):
        del given["num_training_steps"]  # the one follows from the other
    # Nobody updates anything with it: transformers' functions take an optimizer, and what is wanted is their
    # multiplier.
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=horizon.learning_rate)
    try:
        scheduler = component.function()(optimizer, **given, **dict(options))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"schedule {component.model_fields['type'].default}: {error}") from error
    multiplier: Callable[[int], float] = scheduler.lr_lambdas[0]
    return multiplier
