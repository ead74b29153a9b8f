"""Write the file: what the model is, then each weight, read, rounded and written before the next one is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug import ModelError
from sftplug_gguf.weights import Weight

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

LARGEST_F16 = 65504.0


def write(target: Path, family: str, keys: Mapping[str, Any], weights: Sequence[Weight], outtype: str) -> None:
    """Write a GGUF file of `keys` and `weights`. Raises ModelError for a weight that its type cannot hold."""
    import numpy
    from gguf import GGUFWriter, quant_shape_to_byte_shape

    writer = GGUFWriter(target, family)
    types = [type_of(weight, outtype) for weight in weights]
    for name, value in keys.items():
        _add(writer, name, value)
    for weight, kind in zip(weights, types, strict=True):
        shape = quant_shape_to_byte_shape(weight.shape, kind)
        writer.add_tensor_info(weight.name, shape, numpy.dtype(numpy.uint8), math.prod(shape), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for weight, kind in zip(weights, types, strict=True):
            writer.write_tensor_data(_rounded(weight, kind))
    finally:
        writer.close()


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    """Add a key; its type is that of the Python value."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, list(value))


# --- types of weights -------------------------------------------------------------------------------------------------

ENDS = ("token_embd.weight", "output.weight")
"""Embeddings and head: where matrices have fewer than 8 bits these have 8, for an error in them is in every token."""


def type_of(weight: Weight, outtype: str) -> GGMLQuantizationType:
    """Return the type in which a weight is written.

    Vectors and routers stay in fp32, as llama.cpp wants them. A row that does not fill its blocks cannot be quantized,
    and stays in 16 bits.
    """
    from gguf import GGML_QUANT_SIZES
    from gguf import GGMLQuantizationType as Types

    if len(weight.shape) == 1 or ".ffn_gate_inp." in weight.name:
        return Types.F32
    kind = Types[outtype.upper()]
    if weight.name in ENDS and outtype in ("q4_0", "q4_1", "q5_0", "q5_1"):
        kind = Types.Q8_0
    block, _ = GGML_QUANT_SIZES[kind]
    return kind if weight.shape[-1] % block == 0 else Types.F16


def _rounded(weight: Weight, kind: GGMLQuantizationType) -> Any:
    """Return the bytes of a weight, as an array of the file's shape."""
    import numpy
    from gguf import GGMLQuantizationType as Types
    from gguf import quantize

    values = weight.load().detach().float().contiguous().numpy()
    if not numpy.isfinite(values).all():
        raise ModelError(
            f"the weight {weight.name} is not finite: the training has diverged, and there is nothing to run."
        )
    if kind is Types.F16 and numpy.abs(values).max(initial=0.0) > LARGEST_F16:
        raise ModelError(
            f"the weight {weight.name} has values above {LARGEST_F16:.0f}, which 16-bit floats do not reach. "
            "Set `outtype: bf16`, or f32."
        )
    return numpy.ascontiguousarray(quantize(values, kind)).view(numpy.uint8)
