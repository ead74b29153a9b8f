"""How long what a user expects at once takes: help, plugins, a typing mistake in a recipe, and ``import sftplug``.

    python benchmarks/startup.py [--repeats 15] [--model FOLDER]

With ``--model``, the folder of a model, also how much processor time `preview`, `prepare` and `check` of one row take,
beside a Python that only imports transformers and loads the tokenizer.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

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
    return since(before)


def since(before: resource.struct_rusage) -> float:
    """Return the CPU time that children have taken which have ended since `before`."""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


ONE_ROW = {"preview": (["-n", "1"], 1.1), "prepare": (["--output", "prepared"], 1.1), "check": ([], 1.4)}
"""Command -> its further arguments, and how many times the import it is to take at most."""
RECIPE = (
    "model: {model}\ndata: {{train: {{path: rows.jsonl, format: messages}}, max_length: 512}}\nmasking: assistant\n"
)
ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'


def of_one_row(model: Path, repeats: int) -> None:
    """Print what the commands take on one row, and how many times the import of transformers and the tokenizer."""
    load = f"import transformers; transformers.AutoTokenizer.from_pretrained({str(model)!r})"
    bare = statistics.median(cpu_seconds(load) for _ in range(repeats))
    print(f"\n| command | median CPU s | times the import and tokenizer ({bare:.2f} s) | goal |\n|---|---|---|---|")
    for name, (arguments, goal) in ONE_ROW.items():
        times = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "rows.jsonl").write_text(ROW)
                Path(folder, "recipe.yaml").write_text(RECIPE.format(model=model))
                # Nothing that was prepared before helps.
                environment = {**os.environ, "SFTPLUG_CACHE": str(Path(folder, "cache"))}
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                run = [sys.executable, "-m", "sftplug", name, "recipe.yaml", *arguments]
                subprocess.run(run, cwd=folder, env=environment, capture_output=True, check=True)
                times.append(since(before))
        taken = statistics.median(times)
        print(f"| `sftplug {name}` | {taken:.2f} | {taken / bare:.2f} | {goal} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    repeats = options.repeats
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
    if options.model is not None:
        of_one_row(options.model.resolve(), repeats)


if __name__ == "__main__":
    main()
