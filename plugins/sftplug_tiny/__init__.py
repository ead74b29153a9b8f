"""A base model built on the spot, for lessons, tests and a first run without a download."""

import sftplug
from sftplug_tiny.builder import Tiny


@sftplug.hookimpl
def sftplug_model_builders() -> list[type[sftplug.ModelBuilder]]:
    """Offer the tiny model."""
    return [Tiny]
