"""Make the unfinished runs of this folder with the sftplug that is installed; needs nothing of the tests.

    git worktree add ../sftplug-0.1.0 e1cd0c4
    python -m venv ../then && ../then/bin/pip install -e '../sftplug-0.1.0'
    ../then/bin/python tests/frozen/begun/make.py /tmp/frozen-runs

Copies model, rows, recipes and plugin files to the folder, which the record of each run will name. Each recipe is
trained there to its end, for `figures.json`, and once more, when the process is killed while it writes its second
checkpoint: so is the folder that `runs.tar.xz` holds, but for the lock and its note, which names the machine. With
``--model`` the model is made, too, which was done once.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tarfile
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
PLUGINS = HERE.parent / "0.1.0" / "acme"
KILLED_IN = "checkpoint-8"
NAMES = ("lora", "qlora", "full", "packed", "acme")


def make_model(folder: Path) -> None:
    """Write a Llama of 2,744 numbers, and a tokenizer whose tokens are bytes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from sftplug_tiny.builder import build_tokenizer

    tokenizer = build_tokenizer(260)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **heads, **ids)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(arguments: list[str], killed_in: str = "") -> int:
    """Run ``sftplug train ARGUMENTS`` in a process of its own; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=_train, args=(arguments, killed_in))
    process.start()
    process.join()
    return int(process.exitcode or 0)


def _train(arguments: list[str], killed_in: str) -> None:
    if killed_in:
        sys.addaudithook(partial(_kill, killed_in))
    from sftplug.cli import main

    sys.argv = ["sftplug", "train", *arguments]
    main()


def _kill(folder: str, event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike) and folder in Path(arguments[0]).parts:
        os.kill(os.getpid(), signal.SIGKILL)


def pack(archive: Path) -> None:
    """Write the runs to an archive, the same bytes for the same files."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name in NAMES:
            packed.add(name, filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if Path(entry.name).name.startswith(".lock"):
        return None
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def figures(run: Path) -> dict:
    """Return what came of an undisturbed run: its losses by step, and the hash of its weights."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    (weights,) = [run / name for name in WEIGHTS if (run / name).is_file()]
    evaluated = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    return {"losses": losses, "eval_losses": evaluated, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}


WEIGHTS = ("adapter_model.safetensors", "model.safetensors")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    if "--model" in sys.argv:
        make_model(HERE / "model")
    shutil.copytree(HERE / "model", folder / "model")
    for file in [*HERE.glob("*.jsonl"), *HERE.glob("*.yaml"), *PLUGINS.glob("*.py")]:
        shutil.copy(file, folder)
    os.chdir(folder)
    known = {}
    for name in NAMES:
        assert train([f"{name}.yaml", "--output", f"whole/{name}"]) == 0, name
        known[name] = figures(Path("whole") / name)
        assert train([f"{name}.yaml", "--output", name], KILLED_IN) == -signal.SIGKILL, name
    pack(HERE / "runs.tar.xz")
    environment = json.loads((folder / "whole" / "lora" / "environment.json").read_text())
    (HERE / "figures.json").write_text(json.dumps({"runs": known, "environment": environment}, indent=1) + "\n")


if __name__ == "__main__":
    main()
