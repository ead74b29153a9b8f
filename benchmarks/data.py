"""How fast rows become labelled tokens: sftplug, TRL's own preparation, and the bare limit, side by side.

    python benchmarks/data.py [--rows 10000] [--repeats 3] [--memory]

The rows are four-turn conversations of about 300 tokens of text that ships with Python (its documentation and the
comments of its library); the tokenizer is a byte-level BPE of 32,000 tokens trained on the same, with Qwen's pattern.
Only the assistant's turns are trained. The bare limit is the compiled chat template rendered once a row and the
engine in batches on that text, and nothing else. sftplug's time holds all it does: reading the file, provenance, the
check, masks, the ledger, writing to disk; TRL's and the bare limit's rows are read before the clock starts. Everything
runs in one process, in turns; the best times count. ``--memory`` adds by how much the peak memory grows.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def words() -> list[str]:
    """Return the words of Python's documentation and of its library's docstrings and comments."""
    from pydoc_data.topics import topics

    folder = Path(sysconfig.get_path("stdlib"))
    sources = [file.read_text(encoding="utf-8", errors="ignore") for file in sorted(folder.glob("*.py"))]
    prose = [part for source in sources for part in re.findall(r'"""(.+?)"""', source, re.DOTALL)]
    return " ".join([*topics.values(), *prose]).split(" ")


def make(folder: Path, rows: int) -> None:
    """Write ``tokenizer/`` and ``rows.jsonl``."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    text = words()
    rng = random.Random(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=32000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((" ".join(text[at : at + 200]) for at in range(0, len(text), 200)), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder / "tokenizer")

    def turn(role: str) -> dict[str, str]:
        start = rng.randrange(len(text) - 80)
        return {"role": role, "content": " ".join(text[start : start + 72]).strip() or "."}

    with (folder / "rows.jsonl").open("w") as file:
        for _ in range(rows):
            messages = [turn(role) for role in ("user", "assistant", "user", "assistant")]
            file.write(json.dumps({"messages": messages}) + "\n")


def load(folder: Path) -> Any:
    """Return the tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer")


def run_sftplug(folder: Path, engine: str) -> tuple[float, Any]:
    """Prepare the rows as `sftplug.prepare` does, from the file to the dataset on disk.

    Not by it: it loads the tokenizer too, which here is loaded before the clock starts, as TRL's is.
    """
    import sftplug
    from sftplug.data.prepare import prepare
    from sftplug.data.store import Store

    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "model: ./model\nchat_template: tokenizer\nmasking: assistant\nquantization: fp32\n"
        f"data: {{train: {{path: rows.jsonl, format: messages}}, max_length: 1024, max_loss: 1, engine: {engine}}}\n"
    )
    (folder / "model").mkdir(exist_ok=True)
    store = Store(folder / "prepared", [])
    for kept in store.folder.glob("[0-9a-f]*[0-9a-f]"):
        shutil.rmtree(kept, ignore_errors=True)  # the rows are prepared every time; only the engines' proof is kept
    loaded, tokenizer = sftplug.load(recipe).recipe, load(folder)
    started = time.perf_counter()
    prepared = prepare(loaded, tokenizer, store=store)
    return time.perf_counter() - started, prepared.train


def run_trl(folder: Path) -> tuple[float, Any]:
    """Let `SFTTrainer` prepare the same rows, read before the clock starts."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = load(folder)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    data = datasets.Dataset.from_list(rows)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = LlamaForCausalLM(config)
    arguments = SFTConfig(
        output_dir=str(folder / "trl"),
        assistant_only_loss=True,
        max_length=1024,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    datasets.disable_caching()
    datasets.disable_progress_bars()
    started = time.perf_counter()
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    return time.perf_counter() - started, trainer.train_dataset


def run_bare(folder: Path, engine: str) -> float:
    """Render the compiled template once a row and encode in batches; nothing else."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    from sftplug.data.engine.backend import TokenizersEngine
    from sftplug.data.engine.bpe import tiktoken_engine

    backend = load(folder).backend_tokenizer
    fast = tiktoken_engine(json.loads(backend.to_str()))
    encode = TokenizersEngine(backend).ids if engine == "tokenizers" or fast is None else fast.ids
    rows = [json.loads(line)["messages"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    template = _compile_jinja_template(TEMPLATE)
    started = time.perf_counter()
    for at in range(0, len(rows), 1000):
        encode([template.render(messages=row, add_generation_prompt=False) for row in rows[at : at + 1000]])
    return time.perf_counter() - started


def same(ours: Any, theirs: Any) -> bool:
    """Whether both prepared the same ids and labels."""
    return all(ours[:200][name] == theirs[:200][name] for name in ("input_ids", "labels"))


def compare(folder: Path, rows: int, repeats: int) -> None:
    """Print the table of times."""
    best: dict[str, float] = {}
    result: dict[str, Any] = {}

    def note(name: str, seconds: float) -> None:
        best[name] = min(seconds, best.get(name, seconds))

    for _ in range(repeats):
        seconds, result["TRL"] = run_trl(folder)
        note("TRL", seconds)
        for engine in ("tokenizers", *["tiktoken"] * 3):  # what is quick is disturbed the more easily
            note(f"bare {engine}", run_bare(folder, engine))
            seconds, result[engine] = run_sftplug(folder, engine)
            note(f"sftplug {engine}", seconds)
    tokens = sum(map(len, result["tiktoken"]["input_ids"]))
    equal = all(same(result[engine], result["TRL"]) for engine in ("tokenizers", "tiktoken"))
    print(f"{rows:,} rows, {tokens:,} tokens; the same ids and labels as TRL: {equal}\n")
    print("| what | s | rows/s | times TRL | times the bare limit of its engine |\n|---|---|---|---|---|")
    for name, seconds in best.items():
        bare = best.get(name.replace("sftplug", "bare"), seconds)
        cells = f"{seconds:.2f} | {rows / seconds:,.0f} | {best['TRL'] / seconds:.1f} | {seconds / bare:.2f}"
        print(f"| {name} | {cells if 'sftplug' in name else cells.rpartition('|')[0] + '|'} |")
    looked_at(folder, best["sftplug tiktoken"])
    recognized(folder, best["sftplug tiktoken"])


def looked_at(folder: Path, seconds: float) -> None:
    """Print how long it takes to compare the rows that were kept with what was written, as each later run does."""
    from sftplug.storage.contents import CONTENTS, integrity_error

    (contents,) = (folder / "prepared").glob(f"*/{CONTENTS}")
    times = []
    for _ in range(5):
        started = time.perf_counter()
        assert integrity_error(contents.parent) is None
        times.append(time.perf_counter() - started)
    size = sum(file.stat().st_size for file in contents.parent.iterdir()) / 1e6
    share = min(times) / seconds
    print(f"\nto look at the {size:.0f} MB that are kept: {min(times):.3f} s, {share:.1%} of the time to prepare them")


def recognized(folder: Path, seconds: float) -> None:
    """Print how long it takes to tell the format by the first rows, where a recipe leaves it out."""
    import sftplug

    named, left_out = folder / "recipe.yaml", folder / "left_out.yaml"
    left_out.write_text(named.read_text().replace(", format: messages", ""))
    times: dict[Path, list[float]] = {named: [], left_out: []}
    for _ in range(5):
        for file, taken in times.items():
            started = time.process_time()
            assert sftplug.load(file).recipe.data.train[0].format.type == "messages"
            taken.append(time.process_time() - started)
    more = min(times[left_out]) - min(times[named])
    print(f"to read the format from the rows: {more:.3f} s of processor time, {more / seconds:.1%} of that time")


def memory() -> None:
    """Print by how much preparing 10,000 and 100,000 rows raises the peak memory, each in a process of its own."""
    print("\n| engine | rows | MB before the first row | MB more at the peak |\n|---|---|---|---|")
    for rows in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as other:
            make(Path(other), rows)
            for engine in ("tokenizers", "tiktoken"):
                command = [sys.executable, __file__, "--peak", other, engine]
                before, more = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
                print(f"| {engine} | {rows:,} | {before} | {more} |", flush=True)


def peak(folder: Path, engine: str) -> None:
    """Print the memory in MB before the rows in `folder` are prepared, and by how much its peak is above that.

    Everything that is loaded once is loaded before, by preparing a few rows. The peak is that of this process alone
    and is reset first (Linux): the peak that `getrusage` tells is handed down by the process that started this one.
    """
    few = folder / "few"
    few.mkdir(exist_ok=True)
    shutil.copytree(folder / "tokenizer", few / "tokenizer", dirs_exist_ok=True)
    with (folder / "rows.jsonl").open() as rows, (few / "rows.jsonl").open("w") as first:
        first.writelines(itertools.islice(rows, 100))
    run_sftplug(few, engine)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_in_mb("VmRSS")
    run_sftplug(folder, engine)
    print(f"{before:.0f} {memory_in_mb('VmHWM') - before:.0f}")


def memory_in_mb(name: str) -> float:
    """Return what the kernel says of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return peak(Path(options.peak[0]), options.peak[1])
    print(f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}, ", end="")
    print(f"Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("sftplug", "trl", "transformers", "tokenizers", "tiktoken")))
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.rows)
        compare(Path(folder), options.rows, options.repeats)
        if options.memory:
            memory()
    return None


if __name__ == "__main__":
    main()
