"""Peak memory of training, of the evaluation in training and of `sftplug eval`, each in a process of its own.

    python benchmarks/evaluation.py [--hidden 512] [--layers 4] [--length 256] [--batch 4] [--vocab 8192]

On a CPU: the most anonymous resident memory (RssAnon) and weights mapped from files, looked at every 5 ms, less what
the process had after its imports and the preparation of the rows; with an allocator that hands freed memory back at
once. The model has random weights, all rows are as long as the recipe allows, and every token is trained. Nothing else
on the machine changes the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

CASES = (("fp32", "full"), ("fp32", "lora"), ("bf16", "lora"), ("nf4", "qlora"))
ROWS = (16, 64)
"""How many rows are evaluated: what is kept of them would show."""
WORKS = ("train", *(f"{work}-{rows}" for work in ("in_training", "command") for rows in ROWS))


def main() -> None:
    """Print the table, or do one piece of work and print the bytes that it took."""
    parser = argparse.ArgumentParser()
    for name, default in (("hidden", 512), ("layers", 4), ("length", 256), ("batch", 4), ("vocab", 8192)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work")
    parser.add_argument("--recipe")
    options = parser.parse_args()
    if options.work:
        print(measured(options.work, options.recipe))
        return
    names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}\n")
    few, many = ROWS
    heads = (f"{what}, {rows} rows MB" for what in ("in training", "`sftplug eval`") for rows in (few, many))
    print(f"| quantization | adapter | training MB | {' | '.join(heads)} |\n|---|---|{'---|' * len(WORKS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder / "model", options)
        for case in CASES:
            file = write(folder, case, options)
            sizes = [in_its_own_process(work, file) for work in WORKS]
            print(f"| {case[0]} | {case[1]} | {' | '.join(f'{size / 1e6:,.0f}' for size in sizes)} |", flush=True)


def build(folder: Path, options: argparse.Namespace) -> None:
    """Write a Llama with random weights, in bf16 as models come, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sftplug_tiny.builder import build_tokenizer

    shape = {
        "hidden_size": options.hidden,
        "intermediate_size": options.hidden * 3,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.hidden // 64,
        "vocab_size": options.vocab,
    }
    config = LlamaConfig(**shape, pad_token_id=1, eos_token_id=0, bos_token_id=None)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer(1024).save_pretrained(folder)


def write(folder: Path, case: tuple[str, str], options: argparse.Namespace) -> Path:
    """Write the recipe, and rows that are all as long as it allows."""
    quantization, adapter = case
    for split, count in (("train", options.batch * 2), ("eval", max(ROWS))):
        (folder / f"{split}.jsonl").write_text((json.dumps({"text": "the " * options.length * 3}) + "\n") * count)
    source = {"format": "text"}
    recipe: dict[str, Any] = {
        "model": str(folder / "model"),
        "data": {
            "train": {"path": str(folder / "train.jsonl"), **source},
            "eval": {"path": str(folder / "eval.jsonl"), **source},
            "max_length": options.length,
            "too_long": "truncate",
            "max_loss": 1,
        },
        "masking": "all",
        "chat_template": "plain",
        "quantization": quantization,
        "adapter": adapter,
        "train": {
            "max_steps": 2,
            "per_device_train_batch_size": options.batch,
            "save_strategy": "no",
            "eval_strategy": "no",
        },
        "output": str(folder / f"run-{quantization}-{adapter}"),
    }
    file = folder / f"{quantization}-{adapter}.yaml"
    file.write_text(json.dumps(recipe))
    return file


def in_its_own_process(work: str, recipe: Path) -> int:
    """Return the bytes that `work` took; freed memory goes back at once, so that what is held is what is counted."""
    command = [sys.executable, "-W", "ignore", __file__, "--work", work, "--recipe", str(recipe)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{work} of {recipe} failed:\n{done.stdout}\n{done.stderr}")
    return int(done.stdout.split()[-1])


def measured(work: str, file: str) -> int:
    """Do the work, and return by how much anonymous memory grew at most."""
    import bitsandbytes  # noqa: F401
    import torch

    import sftplug
    import sftplug.training.trainer
    from sftplug.model.loading import load_model
    from sftplug.run import RunDirectory, open_session
    from sftplug.ship.measure import measure
    from sftplug.ship.rows import held_out
    from sftplug.training.train import make_trainer, train

    name, _, rows = work.partition("-")
    loaded = sftplug.load(file, *([f"data.eval.first={rows}"] if rows else []))
    recipe = loaded.recipe
    selection = held_out(recipe)
    assert selection is not None
    chosen = replace(loaded, recipe=selection.recipe) if name == "command" else loaded
    prepared = sftplug.prepare(chosen, provenance=name == "command")
    torch.ones(64, 64).mm(torch.ones(64, 64))
    with Peak() as peak:
        if name == "train":
            with open_session(loaded, overwrite=True) as attempt:
                train(loaded, prepared, attempt)
        elif name == "in_training":
            make_trainer(recipe, load_model(recipe), prepared).evaluate()
        else:
            measure(RunDirectory.open(recipe.output), selection.recipe, selection.of(prepared))
    return peak.most - peak.before


class Peak:
    """The most memory of its own that this process has while it is open."""

    def __init__(self) -> None:
        """Note what there is before."""
        self.before = self.most = held()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.is_set():
            self.most = max(self.most, held())
            time.sleep(0.005)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def held() -> int:
    """Return the anonymous resident memory of this process and the size of the weights that it has mapped, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0].split("-") for line in maps if line.endswith(".safetensors")]
    return anonymous + sum(int(end, 16) - int(start, 16) for start, end in mapped)


if __name__ == "__main__":
    main()
