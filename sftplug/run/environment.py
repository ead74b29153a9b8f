"""Where a run ran, as far as it may matter to its numbers; no names of machines, users or folders."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "sftplug",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "tokenizers",
    "tiktoken",
    "safetensors",
    "numpy",
    "pyarrow",
    "pydantic",
    "pluggy",
    "jinja2",
)


def environment() -> dict[str, Any]:
    """Return Python, library versions, system, processor and accelerators."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "processors": os.cpu_count(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name)) is not None},
        **_accelerators(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's model, which `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _accelerators() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"threads": torch.get_num_threads(), "accelerators": []}
    count = torch.cuda.device_count()
    properties = [torch.cuda.get_device_properties(index) for index in range(count)]
    return {
        "threads": torch.get_num_threads(),
        "accelerators": [{"name": item.name, "bytes": item.total_memory} for item in properties],
        "cuda": torch.version.cuda,
    }
