"""What trains: how fast a device multiplies matrices in each of torch's types, and how much memory it has.

In which numbers a model trains fastest depends on the device. A CPU without units for bfloat16 multiplies it ten times
slower than 32-bit floats, and a GPU before Ampere has none either. So a recipe that leaves the type open gets the one
that the device is fast in, told by a product that takes a few milliseconds, and not by a list of processors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from sftplug.errors import ModelError, did_you_mean

GB = 10**9
ENOUGH = 0.8
"""A 16-bit type that multiplies at so many times the speed of float32 is taken: it needs half the memory."""

ComputeDtype = Literal["bfloat16", "float16", "float32"]
"""Type that matrices are multiplied in, by torch's name of it."""


class Device:
    """Something that trains: a CPU or an accelerator."""

    name: str
    """What to call it: ``cpu``, ``H100``."""
    on_cpu: bool
    """Whether it is a CPU."""
    speeds: Mapping[str, float]
    """How fast it multiplies matrices of each type, by torch's name of it, in terms of float32; types that it has no
    units for are left out."""
    flops: float | None
    """Floating-point operations a second of products of float32 matrices, at best; None where that is not known."""
    memory: int | None
    """Bytes."""
    efficiency: tuple[float, float]
    """Share of `flops` that training reaches, least and most; assumed."""

    def __init__(
        self,
        name: str,
        *,
        on_cpu: bool,
        speeds: Mapping[str, float],
        flops: float | None = None,
        memory: int | None = None,
    ) -> None:
        """Describe a device."""
        self.name, self.on_cpu, self.speeds = name, on_cpu, speeds
        self.flops, self.memory = flops, memory
        self.efficiency = (0.3, 1.0) if on_cpu else (0.2, 0.5)

    @property
    def compute_dtype(self) -> ComputeDtype:
        """The type that it trains fastest in: bfloat16, else float16 on accelerators, else float32."""
        kinds: tuple[ComputeDtype, ...] = ("bfloat16",) if self.on_cpu else ("bfloat16", "float16")
        return next((kind for kind in kinds if self.is_fast_in(kind)), "float32")

    @property
    def float_quantization(self) -> str:
        """The quantization that holds weights as floats of that type: ``bf16``, ``fp16`` or ``fp32``."""
        return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[self.compute_dtype]

    def is_fast_in(self, dtype: str) -> bool:
        """Whether it has units for `dtype`: multiplies it about as fast as float32 at least."""
        return dtype == "float32" or self.speeds.get(dtype, 0.0) >= ENOUGH

    def flops_in(self, dtype: str) -> float | None:
        """Return operations a second of products in `dtype`, at best; None where that is not known."""
        speed = 1.0 if dtype == "float32" else self.speeds.get(dtype)
        return None if self.flops is None or speed is None else self.flops * speed

    def explain(self, dtype: str = "bfloat16") -> str:
        """Return ``cpu multiplies bfloat16 0.15 times as fast as float32``."""
        if dtype not in self.speeds:
            return f"{self.name} has no units for {dtype}"
        return f"{self.name} multiplies {dtype} {self.speeds[dtype]:.2g} times as fast as float32"


def _gpu(name: str, float32: float, half: float, gigabytes: int, bfloat16: bool = True) -> Device:
    speeds = {"float16": half / float32, **({"bfloat16": half / float32} if bfloat16 else {})}
    return Device(name, on_cpu=False, speeds=speeds, flops=float32 * 1e12, memory=gigabytes * GB)


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _gpu("A100-40GB", 19.5, 312, 40),
        _gpu("A100-80GB", 19.5, 312, 80),
        _gpu("H100", 67, 989, 80),
        _gpu("H100-PCIe", 51, 756, 80),
        _gpu("H200", 67, 989, 141),
        _gpu("L4", 30.3, 121, 24),
        _gpu("L40S", 91.6, 362, 48),
        _gpu("A10", 31.2, 125, 24),
        _gpu("T4", 8.1, 65, 16, bfloat16=False),
        _gpu("RTX3090", 35.6, 71, 24),
        _gpu("RTX4090", 82.6, 165, 24),
        _gpu("RTX5090", 104.8, 209, 32),
    )
}
"""NVIDIA's data sheets, in teraflops: float32 without tensor cores, as torch multiplies it by default; dense products
of 16-bit types with sums in float32. A T4 alone of these has no units for bfloat16."""


def find_device(name: str | None) -> Device:
    """Return the device of that name; for None the accelerator of this machine, else its CPU.

    Raises ModelError for a name that is in no table.
    """
    if name is None:
        return this_device()
    if name.lower() == "cpu":
        return this_device(use_cpu=True)
    known = {_plain(device): device for device in DEVICES}
    if _plain(name) in known:
        return DEVICES[known[_plain(name)]]
    listed = ", ".join(("cpu", *DEVICES))
    raise ModelError(f"no device '{name}' is known.{did_you_mean(name, DEVICES)} Known: {listed}.")


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


# --- this machine -----------------------------------------------------------------------------------------------------


class _ThisMachine(Device):
    """A device of this machine, looked at when something is asked of it: that imports torch, and many ask nothing."""

    def __init__(self, *, use_cpu: bool) -> None:
        self._use_cpu = use_cpu

    def __getattr__(self, name: str) -> Any:
        """Look at it: nothing else has been set yet."""
        if name.startswith("_"):
            raise AttributeError(name)
        vars(self).update(vars(_look(self._use_cpu)))
        return vars(self)[name]


def this_device(*, use_cpu: bool = False) -> Device:
    """Return what this machine trains on: its accelerator, else its CPU; with `use_cpu` its CPU.

    It is looked at when something is asked of it, once in a process.
    """
    return _ThisMachine(use_cpu=use_cpu)


@cache
def _look(use_cpu: bool) -> Device:
    import torch

    if use_cpu or not torch.accelerator.is_available():
        return _cpu()
    if not torch.cuda.is_available():
        # Nothing more is known of it than that today's accelerators multiply bfloat16.
        return Device(str(torch.accelerator.current_accelerator()), on_cpu=False, speeds={"bfloat16": 1.0})
    properties = torch.cuda.get_device_properties(0)
    listed = next((device for device in DEVICES.values() if _plain(device.name) in _plain(properties.name)), None)
    speeds, flops = (listed.speeds, listed.flops) if listed is not None else (_speeds_of_gpu(), None)
    memory = int(properties.total_memory)
    return Device(properties.name, on_cpu=False, speeds=speeds, flops=flops, memory=memory)


def _speeds_of_gpu() -> dict[str, float]:
    """Return what a GPU that is in no table has units for; that these are as fast as float32 at least is certain."""
    import torch

    major, _ = torch.cuda.get_device_capability()
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {**({"bfloat16": 1.0} if has_bfloat16 else {}), **({"float16": 1.0} if major >= 7 else {})}


def _cpu() -> Device:
    import os

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    float32, bfloat16 = measured()
    return Device("cpu", on_cpu=True, speeds={"bfloat16": bfloat16 / float32}, flops=float32, memory=pages)


def measured(size: int = 256, rounds: int = 10) -> tuple[float, float]:
    """Return operations a second of products on the CPU, in float32 and in bfloat16: those of one core times the cores.

    What is timed is a linear layer of `size` by `size` with as many inputs: some 5 ms in all where there are units for
    bfloat16, some 40 where there are none. One thread, small products and the best of several rounds, because on cores
    that are shared with other work threads wait for each other longer than they compute.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layers = [torch.ones(2, size, size, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
        seconds = [[_seconds(torch.nn.functional.linear, *layer) for layer in layers] for _ in range(rounds + 1)]
    finally:
        torch.set_num_threads(threads)
    # Without the first round, in which the libraries set themselves up.
    float32, bfloat16 = (threads * 2.0 * size**3 / min(column) for column in zip(*seconds[1:], strict=True))
    return float32, bfloat16


def _seconds(product: Callable[..., object], *factors: object) -> float:
    started = time.perf_counter()
    product(*factors)
    return time.perf_counter() - started
