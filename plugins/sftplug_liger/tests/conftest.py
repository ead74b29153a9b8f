"""The kernels on a CPU, by Triton's interpreter, which is chosen before Triton is imported."""

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import liger_kernel.ops.cross_entropy as losses
import liger_kernel.ops.rms_norm as norms
import triton.language as tl
import triton.runtime.interpreter as interpreter


class Number(float):
    """A number of a kernel: compiled, each has a type that it can be cast from; interpreted, it is Python's."""

    def to(self, _: Any) -> "Number":
        """Return the number: the interpreter computes with it as it is."""
        return self


_converted = interpreter._implicit_cvt
interpreter._implicit_cvt = lambda value: Number(value) if type(value) is float else _converted(value)
# Those of the GPU's own library are not there on a CPU.
norms.rsqrt = lambda values: 1.0 / tl.sqrt(values)
losses.tanh = lambda values: 2.0 * tl.sigmoid(2.0 * values) - 1.0
