"""Tokens a second of training with padding, with batches of similar length, and packed; side by side in one run.

    python benchmarks/packing.py [--steps 30] [--rows FILE]

Rows have the lengths of instruction data (log-normal, median 120 tokens, up to 1024), or are those of an Alpaca file.
The model is a Llama of 4 layers and width 256 with random weights, in fp32 with sdpa attention. Every layout sees the
same rows with as many tokens a step, as near as whole rows allow; what counts is trained tokens a second.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sftplug.data.prepare import prepare
from sftplug.models import load_tokenizer
from sftplug.recipe import load_recipe
from sftplug.training import train

WORDS = "the a of to and in that it is was for on are with as his they be at one".split()  # noqa: SIM905
LAYOUTS = {"padding": "none", "similar lengths": "auto", "packed rows": "rows"}


def write(folder: Path, count: int) -> Path:
    """Write rows with the lengths of instruction data."""
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w") as file:
        for _ in range(count):
            words = min(int(rng.lognormvariate(4.6, 0.9)) + 5, 700)
            row = {"instruction": "Go on:", "output": " ".join(rng.choices(WORDS, k=words))}
            file.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def run(folder: Path, rows: Path, packing: str, batch: int, steps: int) -> tuple[float, Any]:
    """Train, and return seconds and trained tokens."""
    recipe = {
        "model": {"build": {"type": "tiny", "layers": 4, "hidden_size": 256, "pretrain_steps": 0}},
        "data": {
            "train": {"path": str(rows), "format": "alpaca"},
            "max_length": 1024,
            "max_loss": 1,
            "packing": packing,
        },
        "chat_template": "chatml",
        "quantization": "fp32",
        "train": {"max_steps": steps, "per_device_train_batch_size": batch, "save_strategy": "no", "logging_steps": 1},
        "output": str(folder / "out"),
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    loaded = load_recipe(str(folder / "recipe.yaml"))
    prepared = prepare(loaded.recipe, load_tokenizer(loaded.recipe))
    share = sum(account.trained for account in prepared.ledger.splits["train"])
    share /= sum(account.tokens for account in prepared.ledger.splits["train"])
    started = time.perf_counter()
    result = train(loaded, prepared)
    return time.perf_counter() - started, (result.tokens / result.seconds, share, result.tokens / steps)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {version('torch')}, trl {version('trl')}\n")
    print("| layout | tokens/s | trained tokens/s | tokens a step | times padding |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = options.rows or write(folder, 2000)
        first = None
        for layout, packing in LAYOUTS.items():
            _, (speed, share, size) = run(folder, rows, packing, 2 if packing == "rows" else 12, options.steps)
            first = first or speed
            print(f"| {layout} | {speed:,.0f} | {speed * share:,.0f} | {size:,.0f} | {speed / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
