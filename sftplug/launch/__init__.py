"""Several processes: what a recipe asks for, whether that can be had here, how it is started, and what came of it."""

from sftplug.launch.check import launch_problems
from sftplug.launch.config import node_rank, write_config
from sftplug.launch.resume import refuse_other_processes
from sftplug.launch.start import start
from sftplug.launch.strategy import find_build_tools, sharding, split_beneath_adapter, strategy_fields
from sftplug.launch.strategy_check import StrategyCheck

__all__ = [
    "StrategyCheck",
    "find_build_tools",
    "launch_problems",
    "node_rank",
    "refuse_other_processes",
    "sharding",
    "split_beneath_adapter",
    "start",
    "strategy_fields",
    "write_config",
]
