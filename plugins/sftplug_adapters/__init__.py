"""Adapter types: which parameters are trained."""

import sftplug
from sftplug_adapters.base import Freeze, Full
from sftplug_adapters.lora import Lora, QLora


@sftplug.hookimpl
def sftplug_adapters() -> list[type[sftplug.Adapter]]:
    """Offer the built-in adapter types."""
    return [Full, Freeze, Lora, QLora]
