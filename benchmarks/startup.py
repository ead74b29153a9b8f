"""How long the commands take that a user expects at once: ``--help``, ``plugins``, and a typing mistake in a recipe.

python benchmarks/startup.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

COMMANDS = {
    "sftplug --help": (["--help"], 0.35),
    "sftplug plugins": (["plugins"], 0.35),
    "sftplug check quickstart train.learning_rat=1": (["check", "quickstart", "train.learning_rat=1"], 0.6),
}


def seconds(arguments: list[str]) -> float:
    """Return the time that one run of sftplug takes as a whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sftplug", *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, sftplug {version('sftplug')}\n")
    print("| command | median s | least s | goal s |\n|---|---|---|---|")
    for name, (arguments, goal) in COMMANDS.items():
        seconds(arguments)  # the first run fills the file cache
        times = [seconds(arguments) for _ in range(repeats)]
        print(f"| `{name}` | {statistics.median(times):.2f} | {min(times):.2f} | {goal} |")


if __name__ == "__main__":
    main()
