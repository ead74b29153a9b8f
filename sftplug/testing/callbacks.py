"""The laws of callbacks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftplug.plugin.calls import trainer_callback
from sftplug.plugin.components import Callback
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import TrainingRun, weights_of


@proving
def check_callback(component: type[Callback], /, **options: Any) -> None:
    """Hold a callback to its laws: it watches a short run. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, made)


def makes_a_callback(callback: Callback) -> None:
    """``trainer_callback`` returns a transformers TrainerCallback, a new one each time: it keeps a run's state."""
    first, second = trainer_callback(callback), trainer_callback(callback)
    demand(
        first is not second,
        f"{shown(first)}, and then {shown(second)}",
        "return a new instance of a subclass of transformers.TrainerCallback.",
    )


def leaves_the_training_alone(callback: Callback) -> None:
    """A run of a few steps trains the same weights, bit for bit, whether or not it is watched."""
    with_it, without = weights_of(TrainingRun(callbacks=[callback]).trained), _unwatched()
    changed = [name for name in without if not np.array_equal(without[name], with_it[name])]
    demand(
        not changed,
        f"after 5 steps, {len(changed)} of {len(without)} parameters differ, such as {changed[0] if changed else ''}",
        "restore what you change (`model.training`, random state: torch.random.fork_rng), and draw no random numbers.",
    )


@cache
def _unwatched() -> dict[str, NDArray[Any]]:
    return weights_of(TrainingRun().trained)


LAWS = (makes_a_callback, leaves_the_training_alone)
