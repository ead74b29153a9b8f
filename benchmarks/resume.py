"""Kill a run with SIGKILL at random moments, resume it, and compare with a run that nobody disturbed.

``python benchmarks/resume.py --kills 20 --seed 0``: LoRA with dropout on an nf4 base, packed rows, shuffled, two data
workers, gradients accumulated over two batches, three epochs with an evaluation each, a checkpoint every other step.
A moment is a share of an undisturbed run: the first tenth of them lie before its first step, the others from then on
until it has ended, however long both take while the machine has other work.
Compared bit by bit: every loss and gradient norm logged, every evaluation, the token counts and the final weights.
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
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import yaml

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sftplug.trainer", "sftplug.training", "sftplug.cli.train", "bitsandbytes"])
EARLY = 0.1
"""Share of the kills that come before the first step."""
UNTIMED = ("seconds", "peak_bytes", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


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
        started = time.monotonic()
        process = run(recipe, Path(folder) / "undisturbed")
        wait_for_step(process, Path(folder) / "undisturbed")
        first = time.monotonic()
        process.join()
        spans = first - started, time.monotonic() - first
        wanted = outcome(Path(folder) / "undisturbed")
        print(f"undisturbed: {spans[0]:.1f} s to the first step, {spans[1]:.1f} s from there to step {wanted['steps']}")
        print(f"final weights {wanted['weights'][:12]}\n")
        rng, same = random.Random(options.seed), True
        print("| kill | moment | killed at | resumed from | losses, norms, evaluations | tokens | weights |")
        print("|---|---|---|---|---|---|---|")
        for number in range(1, options.kills + 1):
            same &= kill_once(recipe, Path(folder) / f"killed-{number}", (rng.random(), spans), wanted)
    print(f"\n{'all identical' if same else 'NOT identical'}")
    sys.exit(not same)


def wait_for_step(process: multiprocessing.Process, output: Path) -> None:
    """Wait until the first step is logged."""
    while process.is_alive() and not (output / "metrics.jsonl").is_file():
        time.sleep(0.01)


def kill_once(recipe: Path, output: Path, moment: tuple[float, tuple[float, float]], wanted: dict) -> bool:
    """Kill a run at a moment, resume it, print a row; return whether it ended as it should."""
    process, (share, (before, after)) = run(recipe, output), moment
    if share < EARLY:
        process.join(share / EARLY * before)
    else:
        wait_for_step(process, output)
        process.join((share - EARLY) / (1 - EARLY) * after)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    where = reached(output)
    process = run(recipe, output)
    process.join()
    got = outcome(output)
    attempts = json.loads((output / "run.json").read_text())["attempts"]
    verdicts = [got[key] == wanted[key] for key in ("metrics", "tokens", "weights")]
    shown = ["identical" if verdict else "DIFFERENT" for verdict in verdicts]
    resumed = f"step {attempts[-1]['from_step']}" if len(attempts) > 1 else "the start"
    print(
        f"| {output.name.removeprefix('killed-')} | {share:.3f} | {where} | {resumed} | {' | '.join(shown)} |",
        flush=True,
    )
    shutil.rmtree(output)
    return all(verdicts)


def reached(output: Path) -> str:
    """Say what the killed run had done."""
    if not (output / "run.json").is_file():
        return "before the run began"
    if json.loads((output / "run.json").read_text())["state"] == "finished":
        return "after its end"
    unsealed = [path.name for path in output.glob("checkpoint-*") if not (path / "sealed.json").is_file()]
    if unsealed:
        return f"while writing {unsealed[0]}"
    if not (output / "metrics.jsonl").is_file():
        return "before the first step"
    lines = [line for line in (output / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return f"step {json.loads(lines[-1])['step']}" if lines else "before the first step"


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
            "save_steps": 2,
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
