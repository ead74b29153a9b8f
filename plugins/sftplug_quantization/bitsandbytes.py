"""8-bit and 4-bit weights by bitsandbytes; the base is frozen, an adapter is trained on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sftplug import ComputeDtype, Device, Quantization, require, this_device

if TYPE_CHECKING:
    from torch import nn

_BLOCK = 64
"""Weights that share one scale (`bnb_4bit_blocksize`'s default)."""
_NESTED_BLOCK = 256
"""Scales that share one scale in turn, with double quantization."""
_LEVELS = 16
"""32-bit values that a 4-bit weight can have; a table of them lies beside each tensor."""
_NESTED_TABLES = 4 * 256 + 4
"""The 32-bit values that an 8-bit scale can have, and the mean that was taken off all scales."""


class _Computing(Quantization):
    """Quantized weights, which are multiplied in a type that may be left to the device."""

    compute_dtype: ComputeDtype | None = None
    """The type; null is the one that the device trains fastest in."""

    def for_device(self, device: Device) -> Quantization:
        """Return it with the type in which `device` trains fastest, where none is named."""
        return self if self.compute_dtype else self.model_copy(update={"compute_dtype": device.compute_dtype})

    @property
    def _dtype(self) -> Any:
        """The type itself; that of this machine where a recipe has not settled it."""
        torch = require("torch", needed_by=f"quantization {self.type}")
        return getattr(torch, self.compute_dtype or this_device().compute_dtype)


class Int8(_Computing):
    """LLM.int8(): 8-bit weights, outlier features in 16 bits (Dettmers et al. 2022, arXiv:2208.07339)."""

    type: Literal["int8"] = "int8"
    bits = 8
    merges_in_place = True
    keeps_inputs = True
    compute_dtype: ComputeDtype | None = None
    """Type of what is not quantized: embeddings, norms, the head; null is the one that the device trains fastest in."""
    threshold: float = 6.0
    """Activations beyond this are outliers, and are multiplied in 16 bits."""
    skip_modules: list[str] | None = None
    """Modules that are not quantized; null leaves out the head."""

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """A byte a weight, and a 32-bit scale a row."""
        return math.prod(shape) + 4 * shape[0]

    def load_kwargs(self) -> dict[str, Any]:
        """Return dtype and quantization configuration."""
        require("bitsandbytes", needed_by="quantization int8")
        transformers = require("transformers", needed_by="quantization int8")
        config = transformers.BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=self.threshold, llm_int8_skip_modules=self.skip_modules
        )
        return {"dtype": self._dtype, "quantization_config": config}


class _FourBit(_Computing):
    """4-bit weights, 64 of them to a scale (Dettmers et al. 2023, arXiv:2305.14314)."""

    bits = 4
    merges_in_place = True
    double_quant: bool = True
    """Quantize the scales too: saves 0.37 bits a weight."""
    compute_dtype: ComputeDtype | None = None
    """Type that weights are unpacked to when they are multiplied, and of what is not quantized; null is the one that
    the device trains fastest in."""
    storage_dtype: Literal["uint8", "bfloat16", "float16", "float32"] = "uint8"
    """Type of the packed tensor; FSDP needs it equal to `compute_dtype`."""

    @property
    def bytes_per_parameter(self) -> float:
        """Half a byte, and the weight's share of the scales."""
        if not self.double_quant:
            # A 32-bit scale for 64 weights: 0.5625 bytes a weight.
            return 0.5 + 4 / _BLOCK
        # An 8-bit scale for 64 weights, and a 32-bit scale for 256 of these: 0.516 bytes a weight.
        return 0.5 + 1 / _BLOCK + 4 / (_BLOCK * _NESTED_BLOCK)

    def weight_bytes(self, shape: Sequence[int]) -> int:
        """Two weights a byte; their scales, as they are held; the tables that scales and weights are looked up in."""
        count = math.prod(shape)
        scales = math.ceil(count / _BLOCK)
        packed = math.ceil(count / 2) + 4 * _LEVELS
        if not self.double_quant:
            return packed + 4 * scales
        return packed + scales + 4 * math.ceil(scales / _NESTED_BLOCK) + _NESTED_TABLES

    def load_kwargs(self) -> dict[str, Any]:
        """Return dtype and quantization configuration."""
        require("bitsandbytes", needed_by=f"quantization {self.type}")
        torch = require("torch", needed_by=f"quantization {self.type}")
        transformers = require("transformers", needed_by=f"quantization {self.type}")
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self._dtype,
            bnb_4bit_quant_storage=getattr(torch, self.storage_dtype),
        )
        return {"dtype": self._dtype, "quantization_config": config}

    def prepare_model(self, model: nn.Module) -> None:
        """Keep evaluation from spoiling the gradients that come after it.

        On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first forward pass in evaluation mode, for
        a kernel that has no backward pass, and stays with it in training: input gradients are lost without a word.
        """
        bitsandbytes = require("bitsandbytes", needed_by=f"quantization {self.type}")
        for module in model.modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                module.support_avx512bf16_for_cpu = False

    def loading_code(self) -> str:
        """The same in plain Python: that kernel also rounds otherwise than training did, by 0.01 of a logit."""
        return _LOADING_CODE


_LOADING_CODE = """
from bitsandbytes.nn import Linear4bit

for module in model.modules():
    if isinstance(module, Linear4bit):  # some CPUs have a kernel for inference alone, which rounds otherwise
        module.support_avx512bf16_for_cpu = False
"""


class NF4(_FourBit):
    """4-bit NormalFloat: levels at the quantiles of a normal distribution (arXiv:2305.14314, section 3)."""

    type: Literal["nf4"] = "nf4"


class FP4(_FourBit):
    """4-bit floats: sign, exponent and mantissa."""

    type: Literal["fp4"] = "fp4"
