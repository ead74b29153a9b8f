"""The configuration of `accelerate launch` for a recipe's ``launch`` section."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from sftplug.recipe.model import LaunchSection, Recipe
from sftplug.util.processes import is_launched, world_size

CONFIG = "accelerate.yaml"
"""Name of the file in the run's folder."""


def accelerate_config(recipe: Recipe, launch: LaunchSection) -> dict[str, Any]:
    """Return what ``accelerate launch --config_file`` reads.

    On CPUs too it says MULTI_GPU: for MULTI_CPU accelerate starts a single process and leaves the others to MPI. What
    the processes run on is their own choice, and they see no accelerator.
    """
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _distributed_type(recipe, launch),
        "num_machines": launch.nodes,
        "num_processes": processes(recipe, launch),
        "machine_rank": node_rank(launch) or 0,
        "main_process_port": launch.main_process_port,
        "mixed_precision": "no",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if launch.main_process_ip is not None:
        config["main_process_ip"] = launch.main_process_ip
    if config["distributed_type"] == "FSDP":
        config["fsdp_config"] = {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
    return config


def write_config(recipe: Recipe, launch: LaunchSection, folder: Path) -> Path:
    """Write the configuration into `folder`, to be read and used again, and return the file."""
    file = folder / CONFIG
    file.write_text(yaml.safe_dump(accelerate_config(recipe, launch), sort_keys=False), encoding="utf-8")
    return file


def _distributed_type(recipe: Recipe, launch: LaunchSection) -> str:
    # DeepSpeed is configured by the trainer in each process: launched as such, accelerate would configure it as well.
    return "FSDP" if launch.strategy == "fsdp2" and not on_cpu(recipe) else "MULTI_GPU"


def on_cpu(recipe: Recipe) -> bool:
    """Whether the recipe trains on CPUs here."""
    return accelerators() == 0 or bool(recipe.train.get("use_cpu"))


def accelerators() -> int:
    """Return how many accelerators this machine has."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def processes(recipe: Recipe, launch: LaunchSection) -> int:
    """Return how many processes there are to be in all: as many as run already, as the recipe says, or one a device."""
    if is_launched():
        return world_size()
    if launch.processes is not None:
        return launch.processes
    return launch.nodes * (1 if on_cpu(recipe) else accelerators())


def node_rank(launch: LaunchSection) -> int | None:
    """Return which node this is: what the recipe says, or SLURM, or 0 where there is but one."""
    if launch.node_rank is not None:
        return launch.node_rank
    if launch.nodes == 1:
        return 0
    slurm = os.environ.get("SLURM_NODEID", "")
    return int(slurm) if slurm.isdigit() else None
