"""What of a recipe's ``launch`` section cannot work here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version

from packaging.version import Version

from sftplug.launch.config import accelerators, node_rank, on_cpu, processes
from sftplug.plugin.components import Quantization
from sftplug.recipe.model import LaunchSection, Recipe
from sftplug.util.processes import is_launched, world_size

_SPLITS_ON_CPU = Version("5.19")
"""The first transformers whose trainer takes a model that is split already, and keeps whole adapters equal."""


def launch_problems(recipe: Recipe) -> list[str]:
    """Return a sentence for everything that is known to be wrong before a process is started."""
    launch = recipe.launch
    if launch is None:
        return []
    return [f"launch.{text}" for check in _CHECKS for text in check(recipe, launch)]


def _count(recipe: Recipe, launch: LaunchSection) -> Iterator[str]:
    if is_launched():
        if launch.processes is not None and launch.processes != world_size():
            yield f"processes: the recipe says {launch.processes}, and the launcher has started {world_size()}."
        return
    if launch.processes is None and on_cpu(recipe):
        yield "processes: there is no accelerator to count here: say how many processes are to run on the CPU."
        return
    wanted, here = processes(recipe, launch), accelerators()
    if wanted % launch.nodes:
        yield f"processes: {wanted} processes cannot be shared evenly by {launch.nodes} nodes."
    elif not on_cpu(recipe) and wanted // launch.nodes > here:
        yield (
            f"processes: {wanted // launch.nodes} on this node, which has {here} accelerator{'s' * (here != 1)}. "
            "Ask for fewer, or set `train.use_cpu`."
        )


def _nodes(recipe: Recipe, launch: LaunchSection) -> Iterator[str]:
    if launch.nodes == 1 or is_launched():
        return
    number = node_rank(launch)
    if launch.main_process_ip is None:
        yield "main_process_ip: with several nodes, give the address of the main one: all meet there."
    if launch.main_process_port == 0:
        yield "main_process_port: with several nodes, all must know the same port: give one."
    if number is None:
        yield "node_rank: with several nodes, say which this is, from 0; SLURM is not here to say so."
    elif number >= launch.nodes:
        yield f"node_rank: {number} of {launch.nodes} nodes; the first is 0 and the last {launch.nodes - 1}."


def _owned(recipe: Recipe, launch: LaunchSection) -> Iterator[str]:
    for name in ("deepspeed", "fsdp", "fsdp_config"):
        if recipe.train.get(name):
            yield f"strategy: `train.{name}` decides the same: leave one of the two out."


def _fsdp(recipe: Recipe, launch: LaunchSection) -> Iterator[str]:
    if launch.strategy != "fsdp2":
        return
    if recipe.quantization.bits == 4:
        yield from _fsdp_of_4_bits(recipe.quantization)
    elif recipe.quantization.bits < 16:
        yield (
            f"strategy: fsdp2 cannot split {recipe.quantization.type} weights, whose scales lie beside them. "
            "Use ddp or zero2."
        )
    if on_cpu(recipe):
        yield from _fsdp_on_cpu(recipe)


_TAKES_NO_PIECES = re.compile(r"adafactor|adamw_8bit|.*_bnb(_.*)?|(paged_.*|lion|ademamix)(_(8|32)bit)?")
"""Names of the trainer's optimizers whose arithmetic mixes tensors of FSDP with plain ones, or has none for them."""


def _optimizer_of_pieces(recipe: Recipe, launch: LaunchSection) -> Iterator[str]:
    """What an optimizer of the recipe's own takes, it says itself; on CPUs, adapters are whole in every process."""
    name = str(recipe.train.get("optim", ""))
    whole = on_cpu(recipe) and not recipe.adapter.trains_base
    if launch.strategy == "fsdp2" and recipe.optimizer is None and not whole and _TAKES_NO_PIECES.fullmatch(name):
        yield (
            f"strategy: fsdp2 holds what is trained in pieces, on which `train.optim: {name}` fails at once. "
            "Use ddp, or set `train.optim: adamw_torch`."
        )


def _fsdp_of_4_bits(quantization: Quantization) -> Iterator[str]:
    """FSDP gathers weights in the type that is computed in; packed ones must be held in it, or are left whole."""
    storage, compute = (getattr(quantization, name, None) for name in ("storage_dtype", "compute_dtype"))
    if storage is None or storage != compute:
        yield (
            f"strategy: fsdp2 splits {quantization.type} weights only if quantization.storage_dtype ({storage}) equals "
            f"quantization.compute_dtype ({compute}). Set both to {compute or 'bfloat16'}, or use ddp or zero2."
        )


def _fsdp_on_cpu(recipe: Recipe) -> Iterator[str]:
    if Version(version("transformers")) < _SPLITS_ON_CPU:
        yield (
            f"strategy: on CPUs, fsdp2 is done by transformers, from {_SPLITS_ON_CPU} on; this is "
            f"{version('transformers')}. Use ddp."
        )
    if recipe.adapter.trains_base and recipe.model.add_tokens:
        yield "strategy: on CPUs, fsdp2 splits the weights when they are loaded, and no tokens can be added. Use ddp."
    saves = recipe.train.get("save_strategy", "epoch") != "no" and not recipe.train.get("save_only_model")
    if recipe.adapter.trains_base and saves:
        yield (
            "strategy: on CPUs, fsdp2 cannot keep the optimizer of split weights in a checkpoint, so no run could be "
            "resumed. Set `train.save_only_model: true`, or `train.save_strategy: no` and no other `train.save_*`."
        )


def _deepspeed(recipe: Recipe, launch: LaunchSection) -> Iterator[str]:
    if not launch.strategy.startswith("zero"):
        return
    if importlib.util.find_spec("deepspeed") is None:
        yield f"strategy: {launch.strategy} needs DeepSpeed, which is not installed: pip install 'sftplug[deepspeed]'."
    elif on_cpu(recipe) and shutil.which(compiler := os.environ.get("CXX", "c++")) is None:
        yield (
            f"strategy: on CPUs, DeepSpeed builds a part of itself when {launch.strategy} starts for the first time, "
            f"and there is no C++ compiler ({compiler}). Install one, such as g++, or use ddp or fsdp2."
        )
    if launch.strategy == "zero3" and recipe.quantization.bits < 16:
        yield (
            f"strategy: zero3 splits weights between processes, and {recipe.quantization.type} weights are packed, "
            "with scales beside them that it does not split. Use zero2 or ddp."
        )


_CHECKS = (_count, _nodes, _owned, _fsdp, _optimizer_of_pieces, _deepspeed)
