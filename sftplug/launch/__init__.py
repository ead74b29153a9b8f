"""Several processes: what a recipe asks for, whether that can be had here, how it is started, and what came of it."""

from sftplug.launch.check import launch_problems
from sftplug.launch.config import write_config
from sftplug.launch.force import InForce
from sftplug.launch.start import start
from sftplug.launch.strategy import sharding, strategy_fields

__all__ = [
    "InForce",
    "accelerate_config",
    "join",
    "launch_problems",
    "sharding",
    "start",
    "strategy_fields",
    "write_config",
]
