"""`sftplug train` beside the same job written directly on TRL's `SFTTrainer`: step time, peak memory, trained tokens/s.

    python benchmarks/overhead.py [--steps 12] [--repeats 3] [--count 240] [--rows FILE] [--sizes 3]

Both sides train the same random weights on the same rows with the same labels, in the same order, with the same options
and seed: TRL with its defaults (fused head), in fp32, without gradient checkpointing; each job is a process of its own,
the sides take turns, and every figure is the median over the repeats (of the steps after the second). On a CPU the
least of a step's times is given too: other work on the machine only adds to it.

The second table lays the rows out as sftplug does, against TRL's default, which pads rows as they are drawn: one epoch,
every row once, trained tokens a second. FILE holds rows in Alpaca's form; without it, rows are made with the lengths of
instruction data.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

WORDS = "the a of to and in that it is was for on are with as his they be at one".split()  # noqa: SIM905
SIZES = (
    {"layers": 2, "width": 128, "vocab": 4096, "batch": 8, "adapter": "full"},
    {"layers": 4, "width": 256, "vocab": 8192, "batch": 8, "adapter": "full"},
    {"layers": 4, "width": 512, "vocab": 32000, "batch": 4, "adapter": "lora"},
)
SCHEDULE = {"learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 0}
"""What an adapter would choose otherwise, where the recipe is silent."""
APART = 1e-4
"""How far the losses of one job may be from those of the other: farther, and the two are not the same job."""
LENGTH, LAYOUT_BATCH, WARM = 512, 12, 2
LAYOUTS = {"similar lengths": "auto", "packed rows": "rows"}
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--sizes", type=int, default=len(SIZES))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--direct", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.direct:
        direct(json.loads(options.direct.read_text()))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}, ", end="")
    print(f"Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl")), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = options.rows.resolve() if options.rows else write_rows(folder, options.count)
        compare_sizes(folder, rows, options)
        compare_layouts(folder, rows, options)


# --- the tables -------------------------------------------------------------------------------------------------------


def compare_sizes(folder: Path, rows: Path, options: argparse.Namespace) -> None:
    """Print a line a model: sftplug's step beside TRL's."""
    print(
        "\n| model | step, TRL (least) | step, sftplug (least) | ratio | peak, TRL | peak, sftplug | ratio | losses |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in SIZES[: options.sizes]:
        train = {"max_steps": options.steps, "per_device_train_batch_size": size["batch"]}
        job = make_job(folder, rows, size, train, options.count)
        sides = take_turns(job, ["direct", "sftplug"], options.repeats)
        theirs, ours = (summary(sides[side]) for side in ("direct", "sftplug"))
        apart = max(
            abs(a - b) for a, b in zip(sides["direct"][0]["losses"], sides["sftplug"][0]["losses"], strict=True)
        )
        print(
            f"| {size['layers']} x {size['width']}, {size['vocab']:,} tokens, {size['adapter']} "
            f"| {theirs['step']:.0f} ms ({theirs['least']:.0f}) | {ours['step']:.0f} ms ({ours['least']:.0f}) "
            f"| {ours['step'] / theirs['step']:.3f} | {theirs['peak']:,.0f} MB | {ours['peak']:,.0f} MB "
            f"| {ours['peak'] / theirs['peak']:.3f} | {apart:.1e} apart |",
            flush=True,
        )
        if apart > APART:
            sys.exit("the two sides did not train the same: their losses differ")


def compare_layouts(folder: Path, rows: Path, options: argparse.Namespace) -> None:
    """Print trained tokens a second of each layout beside TRL's padding."""
    size, train = SIZES[1], {"num_train_epochs": 1, "per_device_train_batch_size": LAYOUT_BATCH}
    jobs = {"TRL, padding": make_job(folder, rows, size, train, options.count)}
    trained, mean = trained_tokens(jobs["TRL, padding"])
    for name, packing in LAYOUTS.items():
        # As many tokens a step as nearly as whole rows allow.
        batch = max(1, round(LAYOUT_BATCH * mean / LENGTH)) if packing == "rows" else LAYOUT_BATCH
        more = {**train, "per_device_train_batch_size": batch}
        jobs[f"sftplug, {name}"] = make_job(folder, rows, size, more, options.count, packing)
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.repeats):
        for name, job in jobs.items():
            result = run(job, "direct" if name.startswith("TRL") else "sftplug")
            found[name].append(trained / sum(result["steps"]))
    first = statistics.median(found["TRL, padding"])
    print(f"\n{trained:,} trained tokens, rows of {mean:.0f} tokens in the mean\n")
    print("| layout | trained tokens/s | times TRL |\n|---|---|---|")
    for name, speeds in found.items():
        print(f"| {name} | {statistics.median(speeds):,.0f} | {statistics.median(speeds) / first:.2f} |")


def take_turns(job: dict[str, Any], sides: list[str], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Run every side `repeats` times, in turns; the side that begins changes, as a machine may slow down."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(repeats):
        for side in sides if number % 2 == 0 else reversed(sides):
            found[side].append(run(job, side))
    return found


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return median and least step in ms, and the median peak in MB."""
    steps = [statistics.median(result["steps"][WARM:]) for result in results]
    least = min(min(result["steps"][WARM:]) for result in results)
    peak = statistics.median(result["peak"] for result in results)
    return {"step": statistics.median(steps) * 1e3, "least": least * 1e3, "peak": peak / 1e6}


# --- the job ----------------------------------------------------------------------------------------------------------


def write_rows(folder: Path, count: int) -> Path:
    """Write rows in Alpaca's form with the lengths of instruction data."""
    rng, made = random.Random(0), []
    for _ in range(count):
        asked, words = rng.randint(5, 60), min(int(rng.lognormvariate(4.0, 0.9)) + 5, 300)
        made.append(
            {"instruction": " ".join(rng.choices(WORDS, k=asked)), "output": " ".join(rng.choices(WORDS, k=words))}
        )
    (folder / "rows.json").write_text(json.dumps(made))
    return folder / "rows.json"


def make_job(  # noqa: PLR0913 - what a job is
    folder: Path, rows: Path, size: dict[str, Any], train: dict[str, Any], count: int, packing: str = "none"
) -> dict[str, Any]:
    """Write a recipe, its model, and its rows as the trainer gets them; return where they are and the options."""
    place = Path(tempfile.mkdtemp(dir=folder))
    options = {**train, **SCHEDULE, "logging_steps": 1, "save_strategy": "no", "seed": 1}
    recipe = {
        "plugins": [str(HERE / "overhead_clock.py")],
        "model": write_model(folder, size),
        "data": {
            "train": {"path": str(rows), "format": "alpaca", "first": count},
            "max_length": LENGTH,
            "max_loss": 1,
            "packing": packing,
        },
        "chat_template": "chatml",
        "quantization": "fp32",
        "adapter": size["adapter"],
        "train": {**options, "gradient_checkpointing": False},
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    sftplug(place, "prepare", "--output", str(place / "rows"))
    return {"place": str(place), "model": recipe["model"], "adapter": size["adapter"], "train": options}


def write_model(folder: Path, size: dict[str, Any]) -> str:
    """Write a Llama with random weights, and the tokenizer of the quickstart."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    from sftplug_tiny.builder import build_tokenizer

    logging.disable_progress_bar()
    target = folder / f"model-{size['layers']}-{size['width']}-{size['vocab']}"
    if not target.is_dir():
        torch.manual_seed(0)
        width, tokenizer = size["width"], build_tokenizer(1024)
        shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": size["layers"]}
        heads = {"num_attention_heads": width // 32, "num_key_value_heads": width // 32, "head_dim": 32}
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        config = AutoConfig.for_model("llama", vocab_size=size["vocab"], **shape, **heads, **ends)
        AutoModelForCausalLM.from_config(config).save_pretrained(target)
        tokenizer.save_pretrained(target)
    return str(target)


def trained_tokens(job: dict[str, Any]) -> tuple[int, float]:
    """Return how many tokens of the prepared rows are trained, and how long a row is in the mean."""
    from datasets import load_from_disk

    rows = load_from_disk(str(Path(job["place"]) / "rows" / "train"))
    labels = rows["labels"]
    return sum(label != -100 for row in labels for label in row), sum(map(len, labels)) / len(rows)


def run(job: dict[str, Any], side: str) -> dict[str, Any]:
    """Train in a process of its own; return its step times in seconds, losses, and peak memory in bytes."""
    place = Path(job["place"])
    result = place / "result.json"
    result.unlink(missing_ok=True)
    os.environ["OVERHEAD_RESULT"] = str(result)
    if side == "sftplug":
        sftplug(place, "train", "--output", str(place / "ours"), "--overwrite")
    else:
        (place / "job.json").write_text(json.dumps(job))
        call([sys.executable, str(Path(__file__).resolve()), "--direct", str(place / "job.json")])
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def sftplug(place: Path, command: str, *more: str) -> None:
    """Run a command of sftplug's on the job's recipe."""
    call([sys.executable, "-m", "sftplug", command, str(place / "recipe.yaml"), *more])


def call(command: list[str]) -> None:
    """Run a command; show what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


# --- the other side ---------------------------------------------------------------------------------------------------


def direct(job: dict[str, Any]) -> None:
    """Train the job as one would without sftplug: TRL and its defaults."""
    import torch
    from datasets import load_from_disk
    from overhead_clock import Clock
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    place = Path(job["place"])
    arguments = SFTConfig(
        output_dir=str(place / "theirs"),
        **job["train"],
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
        args=arguments,
        train_dataset=load_from_disk(str(place / "rows" / "train")),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if job["adapter"] == "lora" else None,
        callbacks=[Clock()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
