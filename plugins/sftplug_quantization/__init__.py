"""Quantization backends: the dtype or quantization of the base model's weights."""

import sftplug
from sftplug_quantization.bitsandbytes import FP4, NF4, Int8
from sftplug_quantization.floats import BF16, FP16, FP32


@sftplug.hookimpl
def sftplug_quantizations() -> list[type[sftplug.Quantization]]:
    """Offer the built-in backends."""
    return [FP32, BF16, FP16, Int8, NF4, FP4]
