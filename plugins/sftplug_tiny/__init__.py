"""A base model built on the spot, for lessons, tests and a first run without a download."""

import sftplug
from sftplug_tiny.builder import Tiny
from sftplug_tiny.random import Random


@sftplug.hookimpl
def sftplug_model_builders() -> list[type[sftplug.ModelBuilder]]:
    """Offer the tiny model, and one of any architecture."""
    return [Tiny, Random]
