"""Kill a run with SIGKILL at random moments, resume it, and compare with a run that nobody disturbed.

``python benchmarks/resume.py --kills 20 --seed 0``: LoRA with dropout on an nf4 base, packed rows, shuffled, two data
workers, gradients accumulated over two batches, three epochs with an evaluation each, a checkpoint every other step.
Two kinds of moment take turns. One is a share of an undisturbed run: the first tenth of them lie before its first step,
the others from then on until it has ended, however long both take while the machine has other work. The other is a
share of the writing of one checkpoint: from when its folder appears until its seal is there.
Compared bit by bit: every loss and gradient norm logged, every evaluation, the token counts and the final weights.
What the killed run had done is read off its folder before it goes on.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sftplug.training.train", "sftplug.training.trainer", "bitsandbytes"])
EARLY = 0.1
"""Share of the moments of a run that come before its first step."""
STEPS, EVERY = 18, 2
"""Steps of a run, and how many lie between two checkpoints."""
UNTIMED = ("seconds", "peak_bytes", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
POLL = 0.0005


@dataclass(frozen=True)
class Undisturbed:
    """How long a run takes when nobody disturbs it, in seconds, and what comes of it."""

    to_first_step: float
    from_there: float
    writing: float
    """One checkpoint, from its folder to its seal: the mean of all of them."""
    outcome: dict


@dataclass(frozen=True)
class Moment:
    """When a run is killed."""

    share: float
    """Of the whole run, or of the writing of a checkpoint."""
    checkpoint: int | None
    """The step of that checkpoint."""

    def __str__(self) -> str:
        return f"{self.share:.3f} of {f'writing checkpoint-{self.checkpoint}' if self.checkpoint else 'the run'}"


def main() -> None:
    """Print a table, a row a kill; the exit code says whether all were identical."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    libraries = " ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft", "bitsandbytes"))
    print(f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {libraries}\n")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SFTPLUG_CACHE"] = f"{folder}/cache"
        recipe = write_recipe(Path(folder))
        run(recipe, Path(folder) / "warm-up").join()  # builds and caches the base model
        known = measure(recipe, Path(folder) / "undisturbed")
        print(
            f"undisturbed: {known.to_first_step:.1f} s to the first step, {known.from_there:.1f} s from there to step "
            f"{known.outcome['steps']}, {known.writing:.2f} s to write a checkpoint"
        )
        print(f"final weights {known.outcome['weights'][:12]}\n")
        print("| kill | moment | seconds | killed at | resumed from | losses, norms, evaluations | tokens | weights |")
        print("|---|---|---|---|---|---|---|---|")
        rows = [
            kill_once(recipe, Path(folder) / f"killed-{number}", moment, known)
            for number, moment in enumerate(moments(options.kills, options.seed), start=1)
        ]
    same = all(row[1] for row in rows)
    print(f"\n{sum(row[0].startswith('while writing') for row in rows)} of {len(rows)} while a checkpoint was written")
    print("all identical" if same else "NOT identical")
    sys.exit(not same)


def moments(kills: int, seed: int) -> list[Moment]:
    """Draw the moments: every other one within the writing of a checkpoint."""
    rng = random.Random(seed)
    saved = range(EVERY, STEPS + 1, EVERY)
    return [Moment(rng.random(), rng.choice(saved) if number % 2 else None) for number in range(kills)]


def measure(recipe: Path, output: Path) -> Undisturbed:
    """Run undisturbed; return how long it took."""
    started, process = time.monotonic(), run(recipe, output)
    wait_for(process, output / "metrics.jsonl")
    first, writing = time.monotonic(), []
    for step in range(EVERY, STEPS + 1, EVERY):
        wait_for(process, output / f"checkpoint-{step}")
        began = time.monotonic()
        wait_for(process, output / f"checkpoint-{step}" / "sealed.json")
        writing.append(time.monotonic() - began)
    process.join()
    assert outcome(output)["steps"] == STEPS
    return Undisturbed(first - started, time.monotonic() - first, sum(writing) / len(writing), outcome(output))


def wait_for(process: multiprocessing.Process, path: Path) -> None:
    """Wait until `path` is there, or the process has ended."""
    while not path.exists() and process.is_alive():
        time.sleep(POLL)


def wait_until(process: multiprocessing.Process, output: Path, moment: Moment, known: Undisturbed) -> None:
    """Wait until the moment has come."""
    if moment.checkpoint is not None:
        wait_for(process, output / f"checkpoint-{moment.checkpoint}")
        process.join(moment.share * known.writing)
    elif moment.share < EARLY:
        process.join(moment.share / EARLY * known.to_first_step)
    else:
        wait_for(process, output / "metrics.jsonl")
        process.join((moment.share - EARLY) / (1 - EARLY) * known.from_there)


def kill_once(recipe: Path, output: Path, moment: Moment, known: Undisturbed) -> tuple[str, bool]:
    """Kill a run at a moment, resume it, print a row; return where it was killed, and whether it ended as it should."""
    started, process = time.monotonic(), run(recipe, output)
    wait_until(process, output, moment, known)
    process.kill()
    seconds = time.monotonic() - started
    process.join()
    where = reached(output)
    process = run(recipe, output)
    process.join()
    got = outcome(output)
    attempts = json.loads((output / "run.json").read_text())["attempts"]
    verdicts = [got[key] == known.outcome[key] for key in ("metrics", "tokens", "weights")]
    shown = ["identical" if verdict else "DIFFERENT" for verdict in verdicts]
    resumed = f"step {attempts[-1]['from_step']}" if len(attempts) > 1 else "the start"
    cells = [output.name.removeprefix("killed-"), str(moment), f"{seconds:.2f}", where, resumed, *shown]
    print(f"| {' | '.join(cells)} |", flush=True)
    shutil.rmtree(output)
    return where, all(verdicts)


def reached(output: Path) -> str:
    """Say what the killed run had done."""
    if not (output / "run.json").is_file():
        return "before the run began"
    if json.loads((output / "run.json").read_text())["state"] == "finished":
        return "after its end"
    unsealed = [path for path in output.glob("checkpoint-*") if not (path / "sealed.json").is_file()]
    if unsealed:
        newest = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
        there = sum(path.is_file() for path in newest.rglob("*"))
        doing = f"writing {newest.name}, {there} files" if newest in unsealed else f"deleting {unsealed[0].name}"
        return f"while {doing}"
    if not (output / "metrics.jsonl").is_file():
        return "before the first step"
    lines = [line for line in (output / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return f"after step {json.loads(lines[-1])['step']} was logged" if lines else "before the first step"


def outcome(output: Path) -> dict:
    """Return what a finished run must have in common with another."""
    state = json.loads((output / "run.json").read_text())
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    metrics = [{key: value for key, value in line.items() if key not in UNTIMED} for line in lines]
    weights = hashlib.sha256((output / "adapter_model.safetensors").read_bytes()).hexdigest()
    return {"steps": state["steps"], "tokens": state["tokens"], "metrics": metrics, "weights": weights}


def run(recipe: Path, output: Path) -> multiprocessing.Process:
    """Start ``sftplug train`` in a process of its own; finished runs are left as they are."""
    process = CONTEXT.Process(target=_train, args=(str(recipe), str(output), os.environ["SFTPLUG_CACHE"]))
    process.start()
    return process


def _train(recipe: str, output: str, cache: str) -> None:
    os.environ["SFTPLUG_CACHE"] = cache
    os.environ["HF_HUB_OFFLINE"] = "1"
    log = os.open(f"{output}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    # The data workers are forked, as they are in a process that a shell starts.
    multiprocessing.set_start_method("fork", force=True)
    from sftplug.cli import main

    sys.argv = ["sftplug", "train", recipe, "--output", output]
    main()


def write_recipe(folder: Path) -> Path:
    """Write rows and a recipe that uses everything that draws random numbers or keeps state."""
    words = ["red", "green", "blue", "iron", "gold", "seven", "nine", "cat"]
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w") as stream:
        for index in range(24):
            question = f"Question {index}: {' or '.join(rng.choices(words, k=rng.randint(2, 8)))}?"
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": rng.choice(words)}]
            stream.write(json.dumps({"messages": messages}) + "\n")
    recipe = {
        "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 2, "hidden_size": 32}},
        "data": {
            "train": {"path": "rows.jsonl", "format": "messages"},
            "eval": {"path": "rows.jsonl", "format": "messages", "first": 4},
            "max_length": 128,
            "packing": "rows",
        },
        "chat_template": "chatml",
        "adapter": {"type": "lora", "dropout": 0.1},
        "quantization": "nf4",
        "train": {
            "num_train_epochs": 3,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "learning_rate": 5e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": EVERY,
            "save_total_limit": 2,
            "eval_strategy": "epoch",
            "dataloader_num_workers": 2,
        },
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return file


if __name__ == "__main__":
    main()
