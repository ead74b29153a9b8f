"""Weights as floating-point numbers, not quantized."""

from __future__ import annotations

from typing import Any, Literal

from sftplug import Quantization, require


class _Float(Quantization):
    """Weights in one of torch's floating-point types."""

    trainable = True

    def load_kwargs(self) -> dict[str, Any]:
        """Return the dtype."""
        names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
        return {"dtype": getattr(require("torch", needed_by=f"quantization {self.type}"), names[self.type])}


class FP32(_Float):
    """32-bit floats: exact, 4 bytes a weight."""

    type: Literal["fp32"] = "fp32"
    bits = 32


class BF16(_Float):
    """bfloat16: the range of fp32 with 8 bits of precision, 2 bytes a weight."""

    type: Literal["bf16"] = "bf16"
    bits = 16


class FP16(_Float):
    """float16: more precision than bf16 and a small range; the base is frozen, because its gradients overflow."""

    type: Literal["fp16"] = "fp16"
    bits = 16
    trainable = False
