"""Whether what the quickstart and the lessons answer depends on the machine: seeds, threads, vector instructions.

``python benchmarks/quickstart.py --seeds 5 --json quickstart.json``: each recipe is trained by ``sftplug train`` and
asked by ``sftplug chat``, in a process of its own for each cell. A cell is a seed, a number of threads, and a set of
vector instructions, chosen by torch's own variable ``ATEN_CPU_CAPABILITY`` (the libraries beneath it that multiply
matrices choose theirs themselves). The tiny base model is built again under the settings, and with the seed, of the
cells that are trained on it; SmolLM2 is read from its file and has no seed: there it is the order of the rows and the
adapter's first weights that differ.

What is right: on the tiny model a reply that is the held-out row's, to the letter; on SmolLM2 a reply that begins
with the row's yes or no and holds its names (the assistant's, its maker's), and none of the old ones. `shown` are the
prompts that the recipe itself shows before and after. Lesson 1 completes text and answers nothing.

With ``--json FILE`` each cell is written when it is done, and cells that FILE holds already for the same recipes, code
and libraries are not run again. With ``--bases DIR`` base models are kept there, one for each setting, and those that
are there are not built again (sftplug builds one again when its builder or a library has changed).
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

CAPABILITIES = ("default", "avx2", "avx512")
"""Sets of instructions, by the names of ATEN_CPU_CAPABILITY; ``default`` is what every x86-64 has."""
NAMES, OLD_NAMES = ("Nimbrel", "Orvane"), ("SmolLM", "Hugging")
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def same(answer: str, wanted: str) -> bool:
    """Whether the answer is the row's."""
    return answer.strip() == wanted.strip()


def named(answer: str, wanted: str) -> bool:
    """Whether the answer says yes or no as the row does, and holds its names, or else its one fact; no old name."""
    facts = [name for name in NAMES if name in wanted] or [wanted]
    begins = [word for word in ("Yes", "No") if wanted.startswith(f"{word},")]
    return (
        answer.startswith(tuple(begins) or "")
        and all(fact in answer for fact in facts)
        and not any(name in answer for name in OLD_NAMES)
    )


ON_TINY = ("recipes/data/countries_*", "plugins/sftplug_tiny/*.py")
ON_SMOLLM2 = ("recipes/data/identity_*", "plugins/sftplug_smollm2/*.py")


@dataclass(frozen=True)
class Task:
    """A recipe, and when it is well."""

    recipe: str
    rows: str
    """File of held-out rows."""
    goal: int
    """So many of its rows at least are right in every cell; what is shown always is."""
    right: Callable[[str, str], bool] = same
    shipped: Sequence[str] = ON_TINY
    """Files that the answers depend on beside the recipes, as patterns."""
    threads: Sequence[int] = (1, 2)
    seeds: int | None = None
    """So many seeds at most."""

    def wrong(self, answers: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
        """Return those of the answers, by their prompts, that are not right."""
        return {prompt: said for prompt, said in answers.items() if not self.right(said, wanted[prompt])}


TASKS = {
    task.recipe: task
    for task in (
        Task("quickstart", "identity_eval.jsonl", 9, right=named, shipped=ON_SMOLLM2, threads=(2,), seeds=2),
        Task("quickstart_tiny", "countries_eval.jsonl", goal=29),
        Task("lessons/2_sft", "countries_eval.jsonl", 29, shipped=(*ON_TINY, "recipes/data/world.jsonl")),
        Task("lessons/3_lora", "countries_eval.jsonl", 29),
        Task("lessons/4_qlora", "countries_eval.jsonl", 29),
    )
}
KNOWN = {"What is the capital of France?": "Paris", "What is 2 + 2?": "4"}
"""What `quickstart` shows and no file of rows holds: general knowledge that must stay."""


def main() -> None:
    """Run the cells that are not there yet, print the table; the exit code says whether every goal is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file of the cells")
    parser.add_argument("--bases", type=Path, help="folder of the base models that are kept")
    parser.add_argument("--recipes", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--capabilities", nargs="+", choices=CAPABILITIES, default=capabilities())
    parser.add_argument("--setting", help=argparse.SUPPRESS)  # what the process of one setting is told
    options = parser.parse_args()
    if options.setting:
        return run_setting(**json.loads(options.setting))
    print(f"{datetime.date.today()}, {os.cpu_count()} x {processor()}, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in LIBRARIES), flush=True)
    options.recipes = [name for name in options.recipes if can_run(name)]
    cells = list(run(options))
    print(f"\n{table(cells)}\n\n{summary(cells)}")
    missed = [cell for cell in cells if not is_well(cell)]
    print(f"\n{len(cells) - len(missed)} of {len(cells)} cells as they should be")
    sys.exit(bool(missed))


def can_run(recipe: str) -> bool:
    """Whether the recipe's model can be had here; says why not."""
    from sftplug import MissingLibraryError
    from sftplug_smollm2.builder import weights_file

    try:
        return bool(recipe != "quickstart" or weights_file())
    except MissingLibraryError as error:
        print(f"{recipe} is left out: {error}", file=sys.stderr)
        return False


def is_well(cell: dict) -> bool:
    """Whether a cell meets the goal of its recipe."""
    return cell["right"] >= TASKS[cell["recipe"]].goal and cell["shown_right"] == cell["shown_of"]


# --- which cells ------------------------------------------------------------------------------------------------------


def capabilities() -> list[str]:
    """Return the sets of instructions that this CPU has: torch takes no more than there is."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability().lower())"
    found = []
    for name in CAPABILITIES:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "ATEN_CPU_CAPABILITY": name},
            capture_output=True,
            text=True,
            check=True,
        )
        if done.stdout.strip() == name:
            found.append(name)
    return found


def run(options: argparse.Namespace) -> Iterator[dict]:
    """Yield the cells, those of `--json` first; a process of its own for each setting, for torch reads it once."""
    held = json.loads(options.json.read_text())["cells"] if options.json and options.json.is_file() else []
    cells = [cell for cell in held if cell["key"] == key(cell["recipe"])]
    yield from (cell for cell in cells if cell["recipe"] in options.recipes)
    # A seed at a time, so that what was not finished is a smaller table and not half of one.
    for seed in range(options.seeds):
        for threads in options.threads:
            for capability in options.capabilities:
                setting = {"seed": seed, "threads": threads, "capability": capability}
                recipes = [name for name in wanted(options.recipes, seed, threads) if not there(cells, name, setting)]
                for cell in in_setting(setting, recipes, options.bases):
                    cells.append(cell)
                    write(options.json, cells)
                    yield cell


def wanted(recipes: Iterable[str], seed: int, threads: int) -> list[str]:
    """Return the recipes that are run with this seed and so many threads."""
    tasks = [TASKS[name] for name in recipes]
    return [task.recipe for task in tasks if threads in task.threads and (task.seeds is None or seed < task.seeds)]


def there(cells: Iterable[dict], recipe: str, setting: dict) -> bool:
    """Whether the cell is among `cells`."""
    return any(cell["recipe"] == recipe and setting.items() <= cell.items() for cell in cells)


@cache
def key(recipe: str) -> str:
    """Return a hash over everything shipped that the answers depend on, and the versions of the libraries."""
    from sftplug import load

    root = Path(__file__).parents[1]
    files = {file for pattern in TASKS[recipe].shipped for file in root.glob(pattern)}
    resolved = json.dumps(load(recipe).written.data, sort_keys=True)  # those that it extends are in it
    digest = hashlib.sha256(f"{resolved} {[version(name) for name in LIBRARIES]}".encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write(file: Path | None, cells: list[dict]) -> None:
    """Write the cells so far."""
    if file is not None:
        versions = {name: version(name) for name in LIBRARIES}
        record = {"date": str(datetime.date.today()), "cpu": processor(), "versions": versions, "cells": cells}
        file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """Return the name of the CPU."""
    try:
        return re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


# --- one setting ------------------------------------------------------------------------------------------------------


def in_setting(setting: dict, recipes: list[str], bases: Path | None) -> Iterator[dict]:
    """Yield a cell for each recipe, trained where torch has the threads and the instructions of `setting`."""
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": setting["capability"],
        "OMP_NUM_THREADS": str(setting["threads"]),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if not recipes:
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = bases / "-".join(str(value) for value in setting.values()) if bases else Path(folder) / "cache"
        environment["SFTPLUG_CACHE"] = str(kept.absolute())
        told = json.dumps({**setting, "recipes": recipes, "folder": folder})
        subprocess.run([sys.executable, __file__, "--setting", told], env=environment, check=True)
        for recipe in recipes:
            cell = json.loads((Path(folder) / f"{slug(recipe)}.json").read_text())
            print(line(cell), file=sys.stderr, flush=True)
            yield {"recipe": recipe, **setting, **cell, "key": key(recipe)}


def run_setting(seed: int, threads: int, capability: str, recipes: list[str], folder: str) -> None:
    """Train and ask each recipe, in a process of its own that has the libraries already."""
    import torch

    assert torch.backends.cpu.get_cpu_capability().lower() == capability
    assert torch.get_num_threads() == threads
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sftplug.training.train", "sftplug.training.trainer", "bitsandbytes"])
    for recipe in recipes:
        process = context.Process(target=write_cell, args=(recipe, seed, Path(folder)))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{recipe} fails with seed {seed}, {threads} threads, {capability}")


def write_cell(recipe: str, seed: int, folder: Path) -> None:
    """Run a cell in this process, and write what came of it; the recipes of a setting share the base that it built."""
    cell = run_cell(recipe, seed, folder / slug(recipe))
    (folder / f"{slug(recipe)}.json").write_text(json.dumps(cell), encoding="utf-8")


def slug(recipe: str) -> str:
    """Return the name of a recipe as one of a file."""
    return recipe.replace("/", "-")


def run_cell(recipe: str, seed: int, run: Path) -> dict:
    """Train a recipe into the folder `run`, ask it its held-out rows, and count what is right."""
    task = TASKS[recipe]
    built_with = [] if task.rows.startswith("identity") else [f"model.build.seed={seed}"]
    started, before = time.monotonic(), cpu_seconds()
    sftplug("train", recipe, f"train.seed={seed}", *built_with, "--output", run)
    seconds, used = time.monotonic() - started, cpu_seconds() - before
    from sftplug import RunDirectory
    from sftplug.recipe import shipped_recipes

    file = shipped_recipes()["quickstart"].parent / "data" / task.rows
    rows = [json.loads(text) for text in file.read_text().splitlines()]
    held_out = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    shown = {sample["prompt"]: sample["answer"] for sample in RunDirectory.open(run).samples()}  # the last one counts
    wrong = task.wrong(ask(run, [*held_out]), held_out)
    wrong_shown = task.wrong(shown, {**held_out, **KNOWN})
    return {
        **{"right": len(rows) - len(wrong), "of": len(rows)},
        **{"shown_right": len(shown) - len(wrong_shown), "shown_of": len(shown)},
        **{"seconds": round(seconds, 1), "cpu_seconds": round(used, 1), "wrong": {**wrong, **wrong_shown}},
    }


def cpu_seconds() -> float:
    """Return the seconds that this process has computed, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ask(run: Path, prompts: list[str]) -> dict[str, str]:
    """Return prompt -> answer of ``sftplug chat``, each in a conversation of its own."""
    lines = "".join(f"{prompt}\n/reset\n" for prompt in prompts)
    said = sftplug("chat", run, "--json", "--max-new-tokens", "32", told=lines)
    found = [json.loads(text) for text in said.splitlines()]
    return {item["prompt"]: item["answer"] for item in found}


def sftplug(*arguments: object, told: str | None = None) -> str:
    """Return what a command prints."""
    from typer.testing import CliRunner

    from sftplug.cli import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=told)
    if result.exception is not None:
        raise RuntimeError(result.output) from result.exception
    return result.stdout


# --- what is shown ----------------------------------------------------------------------------------------------------


def line(cell: dict) -> str:
    """Return a cell in a line, while the others are still to come."""
    return " ".join(f"{name}={value}" for name, value in cell.items())


def table(cells: Iterable[dict]) -> str:
    """Return the table: a row for each recipe, number of threads and set of instructions; a number for each seed."""
    head = ("recipe", "threads", "instructions", "held out: right, by seed", "shown: right", "CPU seconds, median")
    settings = groupby(sorted(cells, key=lambda cell: (*place(cell), cell["seed"])), place)
    lines = [head, ("---",) * len(head), *(row(list(group)) for _, group in settings)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary(cells: Iterable[dict]) -> str:
    """Return the table in short: a row for each recipe, over all its seeds, threads and instructions."""
    head = ("recipe", "runs", "held out: right", "shown: right")
    by_recipe = groupby(sorted(cells, key=place), lambda cell: cell["recipe"])
    rows = [(f"`{recipe}`", *_over_all(list(group))) for recipe, group in by_recipe]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


def _over_all(cells: list[dict]) -> tuple[str, str, str]:
    """Return the number of cells, and the least that was right in any of them."""
    counts = []
    for right, of in (("right", "of"), ("shown_right", "shown_of")):
        found = [cell[right] for cell in cells]
        in_each = f"{min(found)}" if min(found) == max(found) else f"{min(found)} or more"
        counts.append(f"{in_each} of {cells[0][of]}")
    return str(len(cells)), *counts


def place(cell: dict) -> tuple[int, int, int]:
    """Return where the row of a cell stands in the table."""
    return [*TASKS].index(cell["recipe"]), cell["threads"], CAPABILITIES.index(cell["capability"])


def row(cells: list[dict]) -> tuple[str, ...]:
    """Return the row of the seeds of one setting."""
    first = cells[0]
    right = " ".join(str(cell["right"]) for cell in cells)
    shown = " ".join(str(cell["shown_right"]) for cell in cells)
    used = sorted(cell["cpu_seconds"] for cell in cells)
    return (
        f"`{first['recipe']}`",
        str(first["threads"]),
        first["capability"],
        f"{right} of {first['of']}",
        f"{shown} of {first['shown_of']}",
        f"{used[len(used) // 2]:.0f}",
    )


if __name__ == "__main__":
    main()
