"""Every quantization method of the installed transformers, its options read from transformers' own classes."""

from collections.abc import Sequence

import sftplug
from sftplug_transformers.methods import quantization_methods


@sftplug.hookimpl
def sftplug_quantizations() -> Sequence[sftplug.Deferred]:
    """Offer all methods that transformers registers, by transformers' names."""
    return quantization_methods()
