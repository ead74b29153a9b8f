"""The packages of the tutorial as ``sftplug plugins new`` writes them: its chapters show what a reader gets."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sftplug.plugin.registry import Registry
from sftplug.scaffold import write_package

PACKAGES = {
    "masking": "digits",
    "format": "ultrachat",
    "processor": "each-answer",
    "template": "zephyr",
    "source": "markdown-notes",
    "adapter": "rescale",
    "quantization": "mlp-int8",
    "patch": "soft-cap",
    "loss": "soft-limit",
    "head": "small-pieces",
    "optimizer": "slow-tables",
    "schedule": "inverse-root",
    "callback": "low-loss",
    "metric": "brevity",
    "exporter": "checksums",
    "policy": "epoch-limit",
    "section": "token-price",
    "command": "lowest-loss",
}
"""Kind -> name, in the order of the chapters."""


def package_files(registry: Registry) -> dict[str, str]:
    """Return path below ``docs/`` -> text of every file of every package."""
    texts = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, name in PACKAGES.items():
            for file in write_package(kind, name, Path(folder), registry):
                texts[f"tutorial/{file.relative_to(folder)}"] = file.read_text(encoding="utf-8")
    return texts
