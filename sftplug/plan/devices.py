"""How much memory devices have and how fast they multiply matrices, from their makers' data sheets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sftplug.errors import ModelError, did_you_mean

GB = 10**9


@dataclass(frozen=True, slots=True)
class Device:
    """Something that trains."""

    name: str
    on_cpu: bool
    flops: float | None
    """Floating-point operations a second of dense matrix products in bf16 (fp16 where there is no bf16) at best."""
    memory: int | None
    """Bytes."""
    efficiency: tuple[float, float] = (0.2, 0.5)
    """Share of `flops` that training reaches, least and most; assumed."""


def _gpu(name: str, teraflops: float, gigabytes: int) -> Device:
    return Device(name, False, teraflops * 1e12, gigabytes * GB)


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _gpu("A100-40GB", 312, 40),
        _gpu("A100-80GB", 312, 80),
        _gpu("H100", 989, 80),
        _gpu("H100-PCIe", 756, 80),
        _gpu("H200", 989, 141),
        _gpu("L4", 121, 24),
        _gpu("L40S", 362, 48),
        _gpu("A10", 125, 24),
        _gpu("T4", 65, 16),
        _gpu("RTX3090", 71, 24),
        _gpu("RTX4090", 165, 24),
        _gpu("RTX5090", 209, 32),
    )
}
"""NVIDIA's data sheets: dense products in bf16 with sums in fp32, of a T4 in fp16."""


def find_device(name: str | None) -> Device:
    """Return the device of that name; for None the accelerator of this machine, else its CPU.

    Raises ModelError for a name that is in no table.
    """
    if name is None:
        return _this_machine()
    if name.lower() == "cpu":
        return this_cpu()
    known = {_plain(device): device for device in DEVICES}
    if _plain(name) in known:
        return DEVICES[known[_plain(name)]]
    listed = ", ".join(("cpu", *DEVICES))
    raise ModelError(f"no device '{name}' is known.{did_you_mean(name, DEVICES)} Known: {listed}.")


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


def _this_machine() -> Device:
    import torch

    if not torch.accelerator.is_available():
        return this_cpu()
    if not torch.cuda.is_available():
        return Device(str(torch.accelerator.current_accelerator()), False, None, None)
    properties = torch.cuda.get_device_properties(0)
    found = next((device for device in DEVICES.values() if _plain(device.name) in _plain(properties.name)), None)
    return Device(properties.name, False, found.flops if found else None, int(properties.total_memory))


def this_cpu() -> Device:
    """Return this machine's CPU, its speed found by multiplying two matrices."""
    import os

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return Device("cpu", True, _matmul_flops(), pages, efficiency=(0.3, 1.0))


def _matmul_flops(size: int = 768, rounds: int = 5) -> float:
    """Return operations a second of a product of two fp32 matrices, the best of a few rounds: 0.1 s or so."""
    import torch

    left, right = torch.ones(size, size), torch.ones(size, size)
    left.mm(right)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        left.mm(right)
        seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(seconds)
