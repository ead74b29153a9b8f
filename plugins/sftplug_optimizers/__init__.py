"""Optimizers: all of transformers by name, Muon, and schedule-free AdamW."""

from collections.abc import Sequence

import sftplug
from sftplug_optimizers.by_name import optimizers
from sftplug_optimizers.muon import Muon
from sftplug_optimizers.schedule_free import ScheduleFree


@sftplug.hookimpl
def sftplug_optimizers() -> Sequence[type[sftplug.Optimizer] | sftplug.Deferred]:
    """Offer the built-in optimizers, and those of transformers by transformers' names."""
    return [Muon, ScheduleFree, *optimizers()]
