"""Optimizers: all of transformers by name, and Muon."""

from collections.abc import Sequence

import sftplug
from sftplug_optimizers.by_name import optimizers
from sftplug_optimizers.muon import Muon


@sftplug.hookimpl
def sftplug_optimizers() -> Sequence[type[sftplug.Optimizer] | sftplug.Deferred]:
    """Offer the built-in optimizers, and those of transformers by transformers' names."""
    return [Muon, *optimizers()]
