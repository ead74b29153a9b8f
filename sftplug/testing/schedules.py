"""The laws of schedules."""

from __future__ import annotations

from typing import Any

from sftplug.plugin.calls import multiplier, warms_up
from sftplug.plugin.components import Schedule
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make
from sftplug.testing.proofs import proving
from sftplug.types.trained_parameters import Horizon

_RATE = 1e-3
_HORIZONS = tuple(
    Horizon(steps, warmup, _RATE) for steps, warmup in ((1, 0), (10, 0), (10, 1), (100, 10), (5, 5), (3, 9))
)
"""Runs with and without warmup, of one update, and shorter than their warmup."""


@proving
def check_schedule(component: type[Schedule], /, **options: Any) -> None:
    """Hold a schedule to its laws, on runs of several lengths. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, made)


def rates(schedule: Schedule, horizon: Horizon) -> list[float]:
    """Return the multiplier of each update, and of the one that would come next."""
    return [multiplier(schedule, step, horizon) for step in range(horizon.steps + 1)]


def is_a_rate(schedule: Schedule) -> None:
    """Each multiplier is a finite number, 0 or more, and some of a run are more."""
    for horizon in _HORIZONS:
        found = rates(schedule, horizon)
        longer_than_warmup = horizon.steps > max(horizon.warmup, 1)
        said = f"{found} for a run of {horizon.steps} updates, {horizon.warmup} of them warmup"
        demand(any(found) or not longer_than_warmup, said, "let some update have a rate.")


def depends_on_the_step_alone(schedule: Schedule) -> None:
    """A step has the same multiplier whichever was asked for before."""
    for horizon in _HORIZONS:
        first = rates(schedule, horizon)
        second = [multiplier(schedule, step, horizon) for step in reversed(range(horizon.steps + 1))][::-1]
        said = f"{first} forwards and {second} backwards"
        demand(first == second, said, "compute it from `step` and `horizon`; remember nothing, draw nothing at random.")


def warms_up_as_it_says(schedule: Schedule) -> None:
    """The rate rises over the warmup, or the schedule says that it has none and does not look at it."""
    long, without = Horizon(100, 10, _RATE), Horizon(100, 0, _RATE)
    found = rates(schedule, long)
    if warms_up(schedule):
        rising = found[:10] == sorted(found[:10]) and found[0] < found[9]
        fix = "let the rate rise over `horizon.warmup` updates, or let `warms_up` be False."
        demand(rising, f"{found[:11]} over a warmup of 10 updates", fix)
    else:
        said = f"{found[:11]} with a warmup of 10 updates and {rates(schedule, without)[:11]} without"
        demand(found == rates(schedule, without), said, "let `warms_up` be True.")


LAWS = (is_a_rate, depends_on_the_step_alone, warms_up_as_it_says)
