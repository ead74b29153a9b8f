"""How long what a user expects at once takes: help, plugins, a typing mistake in a recipe, and ``import sftplug``.

python benchmarks/startup.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
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

IMPORTS = {
    "import pydantic.main": None,
    "import sftplug": 0.15,
    "from sftplug import Masking, hookimpl": None,
    "from sftplug import load": None,
}
"""Each over bare Python; pydantic, of which components are made, is the floor of all but the bare import."""


def seconds(arguments: list[str]) -> float:
    """Return the time that one run of sftplug takes as a whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sftplug", *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


def cpu_seconds(code: str) -> float:
    """Return the CPU time that a Python takes which runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    print("\n| import | median CPU s over bare Python | goal s |\n|---|---|---|")
    bare = statistics.median(cpu_seconds("pass") for _ in range(repeats))
    for code, goal in IMPORTS.items():
        taken = statistics.median(cpu_seconds(code) for _ in range(repeats)) - bare
        print(f"| `{code}` | {taken:.3f} | {goal or ''} |")


if __name__ == "__main__":
    main()
