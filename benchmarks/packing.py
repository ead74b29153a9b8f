"""Tokens a second of training with padding, with batches of similar length, and packed; side by side in one run.

    python benchmarks/packing.py [--count 480] [--rows FILE]

Rows have the lengths of instruction data (log-normal, median 120 tokens, up to 1024), or are those of an Alpaca file.
The model is a Llama of 4 layers and width 256 with random weights, in fp32 with sdpa attention. Every layout trains one
epoch of the same rows, every row once, so all see the same tokens, in as many steps as nearly as whole rows allow; what
counts is trained tokens a second over the epoch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import tempfile
from importlib.metadata import version
from pathlib import Path

from sftplug.data.prepare import prepare
from sftplug.models import load_tokenizer
from sftplug.recipe import load_recipe
from sftplug.training import train

WORDS = "the a of to and in that it is was for on are with as his they be at one".split()  # noqa: SIM905
LENGTH, BATCH = 1024, 12
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


def run(folder: Path, rows: Path, packing: str, count: int, batch: int) -> tuple[float, float, int, float]:
    """Train one epoch; return tokens a second, the share of them that is trained, steps, and tokens of a row."""
    recipe = {
        "model": {"build": {"type": "tiny", "layers": 4, "hidden_size": 256, "pretrain_steps": 0}},
        "data": {
            "train": {"path": str(rows), "format": "alpaca", "first": count},
            "max_length": LENGTH,
            "max_loss": 1,
            "packing": packing,
        },
        "chat_template": "chatml",
        "quantization": "fp32",
        "train": {"num_train_epochs": 1, "per_device_train_batch_size": batch, "save_strategy": "no"},
        "output": str(folder / packing),
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    loaded = load_recipe(str(folder / "recipe.yaml"))
    prepared = prepare(loaded.recipe, load_tokenizer(loaded.recipe))
    accounts = prepared.ledger.splits["train"]
    tokens = sum(account.tokens for account in accounts)
    result = train(loaded, prepared)
    share = sum(account.trained for account in accounts) / tokens
    return result.tokens / result.seconds, share, -(-len(prepared.train) // batch), tokens / accounts[0].kept


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=480)
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    print(f"{platform.machine()}, {datetime.date.today()}, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl")))
    print("\n| layout | tokens/s | trained tokens/s | steps | times padding |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = options.rows.resolve() if options.rows else write(folder, options.count)
        first, mean = None, 0.0
        for layout, packing in LAYOUTS.items():
            batch = max(1, round(BATCH * mean / LENGTH)) if packing == "rows" else BATCH
            speed, share, steps, mean = run(folder, rows, packing, options.count, batch)
            first = first or speed
            print(f"| {layout} | {speed:,.0f} | {speed * share:,.0f} | {steps} | {speed / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
