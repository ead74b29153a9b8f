"""Callbacks: what watches the training loop."""

import sftplug
from sftplug_callbacks.samples import Samples


@sftplug.hookimpl
def sftplug_callbacks() -> list[type[sftplug.Callback]]:
    """Offer the built-in callbacks."""
    return [Samples]
