"""Tokens a second of training with padding, with batches of similar length, and packed; side by side in one run.

    python benchmarks/packing.py [--count 480] [--rows FILE] [--lengths 1024 4096]

Rows have the lengths of instruction data (log-normal, median 120 tokens), or are those of an Alpaca file; only rows
that fit the shortest of the ``--lengths`` are taken. The model is a Llama of 4 layers and width 256 with random
weights, in fp32 with sdpa attention. Every layout trains one epoch of the same rows, every row once, so all see the
same tokens, in as many steps as nearly as whole rows allow; what counts is trained tokens a second over the epoch. Rows
are packed to each of the ``--lengths``: attention costs the more the longer they are, and the mask that keeps their
documents apart grows with its square.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import sftplug
from sftplug import LoadedRecipe, Prepared

WORDS = "the a of to and in that it is was for on are with as his they be at one".split()  # noqa: SIM905
BATCH = 12
LAYOUTS = {"padding": "none", "similar lengths": "auto"}
"""Layouts that do not depend on the length to which rows are packed."""


def write(folder: Path, count: int) -> Path:
    """Write rows with the lengths of instruction data."""
    rng, made = random.Random(0), []
    for _ in range(count):
        words = min(int(rng.lognormvariate(4.6, 0.9)) + 5, 700)
        made.append({"instruction": "Go on:", "output": " ".join(rng.choices(WORDS, k=words))})
    (folder / "rows.json").write_text(json.dumps(made))
    return folder / "rows.json"


def fitting(folder: Path, rows: Path, count: int, length: int) -> Path:
    """Write those of the first `count` rows that have at most `length` tokens: every layout trains the same."""
    source = {"path": str(rows), "format": "alpaca", "first": count}
    prepared = prepared_rows(folder, {"train": source, "max_length": length, "packing": "none"}, BATCH)[1]
    kept = {int(origin[origin.rindex("[") + 1 : -1]) for origin in prepared.origins.of(range(len(prepared.train)))}
    listed = json.loads(rows.read_text())
    (folder / "fitting.json").write_text(json.dumps([listed[index] for index in sorted(kept)]))
    return folder / "fitting.json"


class Run(NamedTuple):
    """One epoch."""

    speed: float
    """Tokens a second."""
    share: float
    """How many of the tokens are trained."""
    steps: int
    mean: float
    """Tokens of a row before packing."""


def run(folder: Path, data: dict[str, Any], batch: int) -> Run:
    """Train one epoch; `data` is the recipe's section."""
    loaded, prepared = prepared_rows(folder, data, batch)
    accounts = prepared.ledger.splits["train"]
    tokens = sum(account.tokens for account in accounts)
    result = sftplug.train(loaded, overwrite=True, show=False)
    share = sum(account.trained for account in accounts) / tokens
    return Run(result.tokens / result.seconds, share, -(-len(prepared.train) // batch), tokens / accounts[0].kept)


def prepared_rows(folder: Path, data: dict[str, Any], batch: int) -> tuple[LoadedRecipe, Prepared]:
    """Return the recipe with this ``data`` section, and its rows."""
    recipe = {
        "model": {"build": {"type": "tiny", "layers": 4, "hidden_size": 256, "pretrain_steps": 0}},
        "data": {"max_loss": 1, **data},
        "chat_template": "chatml",
        "quantization": "fp32",
        "train": {"num_train_epochs": 1, "per_device_train_batch_size": batch, "save_strategy": "no"},
        "output": str(folder / "-".join(map(str, (data["packing"], data["max_length"])))),
    }
    loaded = sftplug.load(recipe)
    return loaded, sftplug.prepare(loaded)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=480)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}, ", end="")
    print(f"Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl")))
    print("\n| layout | tokens/s | trained tokens/s | steps | times padding |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = options.rows.resolve() if options.rows else write(folder, options.count)
        data = {"train": {"path": str(fitting(folder, rows, options.count, min(options.lengths))), "format": "alpaca"}}
        first: Run | None = None
        for layout, packing in LAYOUTS.items():
            done = run(folder, {**data, "packing": packing, "max_length": max(options.lengths)}, BATCH)
            first = first or done
            show(layout, done, first)
        assert first is not None
        for length in options.lengths:
            batch = max(1, round(BATCH * first.mean / length))
            done = run(folder, {**data, "packing": "rows", "max_length": length}, batch)
            show(f"rows packed to {length:,}", done, first)


def show(layout: str, done: Run, first: Run) -> None:
    """Print a line of the table."""
    cells = f"{done.speed:,.0f} | {done.speed * done.share:,.0f} | {done.steps} | {done.speed / first.speed:.2f}"
    print(f"| {layout} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
