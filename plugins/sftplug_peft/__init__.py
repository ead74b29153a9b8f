"""Every adapter type of the installed PEFT, its options read from PEFT's own configuration classes."""

from collections.abc import Sequence

import sftplug
from sftplug_peft.types import adapter_types


@sftplug.hookimpl
def sftplug_adapters() -> Sequence[sftplug.Deferred]:
    """Offer all types that PEFT registers, by PEFT's names; what sftplug has a component for as ``peft_NAME``."""
    return adapter_types()
