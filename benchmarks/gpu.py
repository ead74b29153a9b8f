"""Tokens a second and peak memory on one GPU, by the settings that peers publish, and what `sftplug plan` says of them.

    python benchmarks/gpu.py [--minutes 8] [--only NAME…] [--json FILE]   # the table
    python benchmarks/gpu.py --choose                                     # which head, kernel, checkpointing is fastest
    python benchmarks/gpu.py --tiny                                       # all of it on a CPU, on tiny twins

Models have the published shapes (``recipes/shapes``) and random weights: right for speed and memory, not for losses.
Where only memory counts, they are files of zeros that take no room on the disk (`memory only` in the table): then no
speed is told, since a GPU multiplies zeros faster. Rows are conversations of about 600 tokens, packed, or one of the
whole length.

Each job is a process of its own. A step is an update with all its batches; the median counts, of the steps after the
third. Tokens are all that go through the model, prompts too; padding is none of them. Measured memory is what the
allocator has reserved at most while it trained; `planned` is `sftplug plan` without what it assumes for the driver,
which the allocator does not count. Jobs that no time is left for are listed as not measured.

With ``--choose`` the first job is trained with one thing changed at a time; a change counts as equal where no loss of
the first three steps is further than 1e-3, relative, from the loss as it is shipped. With ``--tiny`` jobs are tiny
twins, and their rows a thirty-second as long.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import platform
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
LORA = {"type": "lora", "r": 16, "alpha": 32, "dropout": 0}
WARM_UP, STEPS, TINY_STEPS = 3, 12, 5
EQUAL = 1e-3


@dataclass(frozen=True)
class Job:
    """What is trained, as a peer has published it."""

    model: str
    length: int
    batch: int
    peer: str
    quantization: str = "bf16"
    adapter: Mapping[str, Any] | str = field(default_factory=lambda: LORA)
    accumulation: int = 1
    packed: bool = True
    train: Mapping[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    """The goal: at least so many tokens a second."""
    gigabytes: float | None = None
    """The goal: at most so many GB (10^9 bytes) reserved."""

    @property
    def memory_only(self) -> bool:
        """Whether no speed is asked for."""
        return self.tokens is None


SAVING = {"gradient_checkpointing": True, "optim": "adamw_8bit"}
_QWEN_8B = Job(
    "Qwen/Qwen3-8B",
    length=2048,
    batch=2,
    accumulation=4,
    tokens=13_500,
    peer="9,100: Unsloth, one H200; 10,200: Surogate, one H100",
)
_LLAMA_70B = Job(
    "meta-llama/Llama-3.1-70B-Instruct",
    length=512,
    batch=1,
    packed=False,
    quantization="nf4",
    adapter={**LORA, "r": 32},
    train=SAVING,
    gigabytes=41,
    peer="41 GB: Unsloth",
)
JOBS = {
    "8b-lora-4096": replace(
        _QWEN_8B,
        model="meta-llama/Llama-3.1-8B-Instruct",
        length=4096,
        tokens=14_000,
        peer="12,473: NeMo Automodel, one H100",
    ),
    "8b-lora-2048": _QWEN_8B,
    "8b-nf4-2048": replace(_QWEN_8B, quantization="nf4", tokens=9_500, peer="8,400: Unsloth, one H200"),
    "0.6b-full-8192": Job(
        "Qwen/Qwen3-0.6B", length=8192, batch=1, adapter="full", tokens=45_000, peer="26,005: prime-rl, one H100"
    ),
    "70b-nf4-512": _LLAMA_70B,
    "70b-nf4-12106": replace(_LLAMA_70B, length=12_106, gigabytes=48, peer="48 GB: Unsloth"),
    "30b-a3b-lora": replace(
        _LLAMA_70B,
        model="Qwen/Qwen3-30B-A3B",
        length=2048,
        quantization="bf16",
        adapter=LORA,
        gigabytes=63,
        peer="63 GB: Unsloth",
    ),
}
TINY_JOBS = {name: replace(job, length=max(128, job.length // 32)) for name, job in JOBS.items()}

CHANGES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    **{f"head {name}": {"loss": {"type": "cross_entropy", "head": name}} for name in ("fused", "chunked", "full")},
    **{f"attention {name}": {"attn_implementation": name} for name in ("sdpa", "flex_attention")},
    # FlashAttention takes the rows of a batch one after the other, without a mask.
    **{
        f"attention {name}": {"attn_implementation": name, "data": {"packing": "flat"}}
        for name in ("flash_attention_2", "flash_attention_3")
    },
    "gradient checkpointing": {"train": {"gradient_checkpointing": True}},
    "torch.compile": {"train": {"torch_compile": True}},
    "Liger": {"patches": ["liger"]},
}
"""What is changed of the first job, one at a time."""


# --- a model and its rows ---------------------------------------------------------------------------------------------


def make_model(job: Job, folder: Path, *, tiny: bool) -> Path:
    """Write a model of the job's shape with its tokenizer, unless it is there already; return its folder."""
    from sftplug.proving.shapes import known_shapes
    from sftplug_tiny.builder import build_tokenizer

    shape = known_shapes()[job.model]
    path = folder / f"{job.model.replace('/', '--')}{'-zeros' if job.memory_only else ''}"
    if (path / "config.json").is_file():
        return path
    path.mkdir(parents=True)
    tokenizer = build_tokenizer(1024)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = {**(shape.twin if tiny else shape.config), **ids}
    if tiny:
        config |= {"vocab_size": len(tokenizer)}
    (write_zeros if job.memory_only else write_random)(config, path)
    tokenizer.save_pretrained(path)
    return path


def write_random(config: dict[str, Any], path: Path) -> None:
    """Write configuration and random weights in bfloat16, made on the GPU where there is one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, figures = config["model_type"], {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **figures), dtype=torch.bfloat16)
    model.save_pretrained(path)


def write_zeros(config: dict[str, Any], path: Path) -> None:
    """Write configuration and weights of zeros, in a file with holes: 140 GB take no room."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, figures = config["model_type"], {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **figures), dtype=torch.bfloat16)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in model.named_parameters():  # one that is tied to another is not named again
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)
    model.config.dtype = torch.bfloat16
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(path)


def write_rows(job: Job, path: Path, steps: int) -> None:
    """Write conversations that are enough for `steps` updates."""
    from sftplug_tiny.builder import prose

    draw = random.Random(0)
    words = " ".join(prose(seed=0, rounds=1)).split()
    tokens = min(600, job.length // 2) if job.packed else job.length
    count = math.ceil(1.2 * steps * job.batch * job.accumulation * job.length / tokens) + 2
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            # A word is a token at least. Rows that are to fill the whole length are cut there.
            text = [draw.choice(words) for _ in range(tokens // 2 if job.packed else tokens)]
            turns = [("user", text[:40]), ("assistant", text[40:])]
            messages = [{"role": role, "content": " ".join(said)} for role, said in turns]
            file.write(json.dumps({"messages": messages}) + "\n")


def recipe_of(job: Job, model: Path, folder: Path, steps: int, change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's recipe, with `change` laid over it."""
    change = dict(change)
    named = {"name_or_path": str(model)}
    if "attn_implementation" in change:
        named["attn_implementation"] = change.pop("attn_implementation")
    train = {
        "max_steps": steps,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulation,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        **job.train,
        **change.pop("train", {}),
    }
    return {
        "model": named,
        "chat_template": "chatml",
        "masking": "assistant",
        "quantization": job.quantization,
        "adapter": dict(job.adapter) if isinstance(job.adapter, Mapping) else job.adapter,
        "data": {
            "train": {"path": str(folder / "rows.jsonl"), "format": "messages"},
            "max_length": job.length,
            "too_long": "truncate",
            "max_loss": 1,
            "packing": "rows" if job.packed else "none",
            **change.pop("data", {}),
        },
        "train": train,
        "output": str(folder / "out"),
        **change,
    }


# --- one job, in a process of its own ---------------------------------------------------------------------------------


def measure(job: Job, models: Path, *, tiny: bool, change: Mapping[str, Any]) -> dict[str, Any]:
    """Plan the job and train it; return seconds and tokens of each step, losses, and memory in bytes."""
    import torch
    from transformers import TrainerCallback

    import sftplug
    from sftplug.model.loading import load_model
    from sftplug.training.train import make_trainer

    class Clock(TrainerCallback):
        """Notes when each step has ended."""

        ends: list[float] = []  # noqa: RUF012

        def on_step_end(self, *args: Any, **more: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    steps = TINY_STEPS if tiny else STEPS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(job, folder / "rows.jsonl", steps)
        recipe = sftplug.load(recipe_of(job, make_model(job, models, tiny=tiny), folder, steps, change))
        planned = sftplug.plan(recipe).plan.to_dict()["memory"]
        prepared = sftplug.prepare(recipe, quiet=True)
        trainer = make_trainer(recipe.recipe, load_model(recipe.recipe), prepared)
        trainer.add_callback(Clock)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "seconds": [after - before for before, after in itertools.pairwise(Clock.ends)],
        "tokens": [after["num_tokens"] - before["num_tokens"] for before, after in itertools.pairwise(log)],
        "losses": [entry["loss"] for entry in log],
        "reserved": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None,
        "planned": [end - held for end, held in zip(planned["total"], planned["overhead"], strict=True)],
    }


def in_a_process(name: str, models: Path, *, tiny: bool, change: str, left: float) -> dict[str, Any]:
    """Return what `measure` returns, or why there is nothing: ``{"why": "…"}``."""
    command = [sys.executable, __file__, "--job", name, "--models", str(models), "--change", change]
    try:
        done = subprocess.run(
            [*command, *(["--tiny"] if tiny else [])], capture_output=True, text=True, timeout=max(left, 1), check=False
        )
    except subprocess.TimeoutExpired:
        return {"why": "no time was left"}
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return {"why": said[-1] if said else f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def speed(found: Mapping[str, Any]) -> float:
    """Return the median of tokens a second, of the steps after the third."""
    per_step = [tokens / seconds for tokens, seconds in zip(found["tokens"], found["seconds"], strict=True)]
    return statistics.median(per_step[WARM_UP - 1 :])


def show_jobs(names: list[str], models: Path, *, tiny: bool, until: float) -> Iterator[dict[str, Any]]:
    """Print the table as it is measured, and yield what was found."""
    print("| job | tokens/s | goal | best peer | GB reserved | GB planned | goal |\n|---|---|---|---|---|---|---|")
    for name in names:
        job = JOBS[name]
        found = in_a_process(name, models, tiny=tiny, change="as shipped", left=until - time.monotonic())
        goal = f">= {job.tokens:,}" if job.tokens else ""
        most = f"<= {job.gigabytes:g}" if job.gigabytes else ""
        if "why" in found:
            shown = [f"not measured: {found['why']}", goal, job.peer, "", "", most]
        else:
            rate = "memory only" if job.memory_only else f"{speed(found):,.0f}"
            reserved = "not measured" if found["reserved"] is None else f"{found['reserved'] / 1e9:.1f}"
            planned = " to ".join(f"{end / 1e9:.3g}" for end in found["planned"])
            shown = [rate, goal, job.peer, reserved, planned, most]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
        yield {"job": name, **found}


def show_changes(name: str, models: Path, *, tiny: bool, until: float) -> Iterator[dict[str, Any]]:
    """Print how fast a job is with each of the changes, and how far its losses are from those as shipped."""
    print(f"| {name} | tokens/s | GB reserved | losses apart | equal |\n|---|---|---|---|---|")
    first: dict[str, Any] = {}
    for change in CHANGES:
        found = in_a_process(name, models, tiny=tiny, change=change, left=until - time.monotonic())
        if "why" in found:
            print(f"| {change} | not measured: {found['why']} | | | |", flush=True)
        else:
            first = first or found
            pairs = zip(found["losses"][:WARM_UP], first["losses"][:WARM_UP], strict=True)
            apart = max(abs(one - other) / abs(other) for one, other in pairs)
            reserved = "not measured" if found["reserved"] is None else f"{found['reserved'] / 1e9:.1f}"
            equal = "yes" if apart <= EQUAL else "no"
            print(f"| {change} | {speed(found):,.0f} | {reserved} | {apart:.1e} | {equal} |", flush=True)
        yield {"job": name, "change": change, **found}


def hardware() -> str:
    """Return the line above the tables."""
    import torch

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"no GPU, {os.cpu_count()} CPU cores"
    libraries = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    return f"{name}, {datetime.date.today()}, Python {platform.python_version()}, {libraries}"


def main() -> None:
    """Print a table; of one job, which a process of its own measures, what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=[*JOBS])
    parser.add_argument("--json", type=Path, help="file for all that was found")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", type=Path, help="folder where models are kept")
    for name, kinds in (("job", JOBS), ("change", CHANGES)):  # what the process of one job is told
        parser.add_argument(f"--{name}", choices=kinds, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        found = measure(
            (TINY_JOBS if options.tiny else JOBS)[options.job],
            options.models,
            tiny=options.tiny,
            change=CHANGES[options.change],
        )
        print(json.dumps(found))
        return
    until = time.monotonic() + 60 * options.minutes
    print(hardware() + (": tiny twins, of which no figure means anything" if options.tiny else "") + "\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        models = options.models or Path(name)
        if options.choose:
            found = show_changes(options.only[0], models, tiny=options.tiny, until=until)
        else:
            found = show_jobs(options.only, models, tiny=options.tiny, until=until)
        kept = list(found)
    if options.json:
        options.json.write_text(json.dumps({"hardware": hardware(), "found": kept}, indent=1))
    if options.tiny and not options.choose and any("why" in found for found in kept):
        sys.exit("a tiny twin could not be trained")


if __name__ == "__main__":
    main()
