"""What `sftplug plan` says a run takes, beside what the run takes; each run in a process of its own.

    python benchmarks/memory.py [--hidden 768] [--layers 8] [--length 512] [--batch 4] [--vocab 8192] [--only nf4]
    python benchmarks/memory.py --losses [--vocab 32768]
    python benchmarks/memory.py --cuda [--size 1b|8b]

On a CPU: the most resident memory (VmHWM) of the update loop, less the memory of the process after its imports, and
less the pages of files that are mapped, but for those that hold weights of the model: pages of library code, which come
in as it is first called, and those of the checkpoint whose weights have been quantized. The system drops such pages
when memory is short; `files` says how many there are. Measured with an allocator that hands freed memory back, and with
glibc's default, which keeps much of it. The model has random weights, and all rows are as long as the recipe allows.
`off`: beyond the nearer end of the planned range. `process`: the most resident memory of a whole `sftplug train`,
files and all, beside the plan in all. With ``--losses`` those of losses and heads, on a
Llama in fp32 with LoRA, whose teacher is the model itself once more. With ``--cuda``:
`torch.cuda.max_memory_allocated`, Llamas of 1 or 8 billion weights.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401
import torch

import sftplug
import sftplug.training.trainer
from sftplug.model.loading import load_model
from sftplug.training.train import make_trainer

_THRESHOLD, _MMAP_THRESHOLD = 65536, -3
"""``mallopt(M_MMAP_THRESHOLD, 65536)``, as MALLOC_MMAP_THRESHOLD_=65536 does: glibc hands freed blocks back at once."""
CASES = [
    *(("fp32", adapter, checkpointing) for adapter in ("full", "lora") for checkpointing in (False, True)),
    *(("bf16", adapter, checkpointing) for adapter in ("full", "lora") for checkpointing in (False, True)),
    *(("int8", "lora", checkpointing) for checkpointing in (False, True)),
    *(("nf4", "qlora", checkpointing) for checkpointing in (False, True)),
]
LOSSES = {
    "cross_entropy": {},
    "cross_entropy, chunked": {"head": "chunked"},
    "focal": {"type": "focal"},
    "kl_to_base": {"type": "kl_to_base"},
    "kl_to_base, chunked": {"type": "kl_to_base", "head": "chunked"},
    "distill": {"type": "distill"},
    "distill, chunked": {"type": "distill", "head": "chunked"},
}
SIZES = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    for name, default in (("hidden", 768), ("layers", 8), ("length", 512), ("batch", 4), ("vocab", 8192)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--losses", action="store_true")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--only")
    options = parser.parse_args()
    names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}\n")
    print(
        "| quantization | adapter | checkpointing | planned MB | measured MB | off | files MB | by default MB "
        "| process MB | planned in all MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forked(lambda model: build(Path(model), options), str(folder / "model"), False)
        for loss in LOSSES if options.losses else ():
            if options.only is None or options.only in loss:
                report(folder, ("fp32", "lora", False), options, loss)
        for case in () if options.losses else CASES:
            if options.only is None or options.only in "-".join(map(str, case)):
                report(folder, case, options)


def build(folder: Path, options: argparse.Namespace) -> None:
    """Write a Llama with random weights, in bf16 as models come, and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(1024)
    shape = (
        SIZES[options.size]
        if options.cuda
        else {
            "hidden_size": options.hidden,
            "intermediate_size": options.hidden * 3,
            "num_hidden_layers": options.layers,
            "num_attention_heads": options.hidden // 64,
        }
    )
    vocabulary = 128256 if options.cuda else options.vocab
    config = LlamaConfig(
        **shape, vocab_size=vocabulary, pad_token_id=1, eos_token_id=0, bos_token_id=None, dtype="bfloat16"
    )
    with torch.device("cuda" if options.cuda else "cpu"):
        torch.set_default_dtype(torch.bfloat16)
        LlamaForCausalLM(config).save_pretrained(folder)
        torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(folder)


def report(folder: Path, case: tuple[str, str, bool], options: argparse.Namespace, loss: str = "") -> None:
    """Plan and run one case, and print its line; that of a loss begins with its name."""
    recipe = str(write(folder, case, options, LOSSES.get(loss, {})))
    memory = forked(plan, recipe, False)
    low, high = (end - held for end, held in zip(memory["total"], memory["overhead"], strict=True))
    measured, files = forked(train, recipe, not options.cuda)
    short = options.cuda or loss
    default = "" if short else f"{forked(train, recipe, False)[0] / 1e6:,.0f}"
    process = "" if short else f"{whole_process(recipe) / 1e6:,.0f}"
    off = measured / min(max(measured, low), high) - 1
    print(
        f"| {loss or case[0]} | {case[1]} | {'on' if case[2] else 'off'} | {low / 1e6:,.0f} to {high / 1e6:,.0f} "
        f"| {measured / 1e6:,.0f} | {off:+.1%} | {files / 1e6:,.0f} | {default} | {process} "
        f"| {memory['total'][0] / 1e6:,.0f} to {memory['total'][1] / 1e6:,.0f} |",
        flush=True,
    )


def whole_process(recipe: str) -> int:
    """Return the most resident memory of ``sftplug train``, in bytes."""
    command = [sys.executable, "-m", "sftplug", "train", recipe, "--overwrite"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"the run of {recipe} failed")
    return usage.ru_maxrss * 1024


def forked(work: Callable[[str], Any], recipe: str, hand_back: bool) -> Any:
    """Return what `work` returns in a process of its own, which has everything imported."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if hand_back:
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _THRESHOLD)
        os.write(writer, json.dumps(work(recipe)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        sys.exit(f"the run of {recipe} failed")
    return json.loads(text)


def plan(file: str) -> Any:
    """Return the plan's memory."""
    return sftplug.plan(file).plan.to_dict()["memory"]


def write(folder: Path, case: tuple[str, str, bool], options: argparse.Namespace, loss: dict[str, Any]) -> Path:
    """Write the recipe, and rows that are all as long as the recipe allows, nearly all of it trained."""
    quantization, adapter, checkpointing = case
    text = "the " * (options.length * 3)
    rows = folder / "rows.jsonl"
    rows.write_text((json.dumps({"text": text}) + "\n") * (options.batch * 4))
    recipe: dict[str, Any] = {
        "model": str(folder / "model"),
        "data": {
            "train": {"path": str(rows), "format": "text"},
            "max_length": options.length,
            "too_long": "truncate",
            "max_loss": 1,
        },
        "masking": "all",
        "chat_template": "plain",
        "quantization": quantization,
        "adapter": adapter,
        "loss": {
            "type": "cross_entropy",
            "head": "full",
            **loss,
            **({"teacher": str(folder / "model")} if loss.get("type") == "distill" else {}),
        },
        "train": {
            "max_steps": 2,
            "per_device_train_batch_size": options.batch,
            "gradient_checkpointing": checkpointing,
            "save_strategy": "no",
        },
        "output": str(folder / "out"),
    }
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe))
    return file


def train(file: str) -> tuple[int, int]:
    """Train, and return by how much memory grew since everything was imported, and how many pages of files came in."""
    loaded = sftplug.load(file)
    prepared = sftplug.prepare(loaded)
    torch.ones(64, 64).mm(torch.ones(64, 64))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or the run would live on what was freed before it
    anonymous, files = resident("RssAnon"), resident("RssFile")
    trainer = make_trainer(loaded.recipe, load_model(loaded.recipe), prepared)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew: loading is over
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), 0
    # The highest mark is in the second update, when there is optimizer state and all code has been called.
    mapped = mapped_weights(trainer.model)
    peak = resident("VmHWM") - resident("RssFile") + mapped - anonymous
    return peak, resident("RssFile") - mapped - files


def mapped_weights(model: Any) -> int:
    """Return the bytes of weights that lie in the mapped pages of a checkpoint, and were not written to."""
    spans, clean = [], 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = words[-1].endswith(".safetensors")
            if inside:
                spans.append([int(end, 16) for end in words[0].split("-")])
        elif inside and words[0] in ("Shared_Clean:", "Private_Clean:"):
            clean += int(words[1]) * 1024
    held = {tensor.data_ptr(): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    in_file = sum(size for place, size in held.items() if any(low <= place < high for low, high in spans))
    return min(clean, in_file)


def resident(name: str) -> int:
    """Return a line of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
