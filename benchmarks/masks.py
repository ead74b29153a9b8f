"""Rows a second of rendering with spans and check, against plain `apply_chat_template` of the same rows.

    python benchmarks/masks.py [--rows 300] [--profile]

All run in turn in one process on one thread; what is printed is the ratio of their best times. "With spans" is what
`prepare` does: a row that the template treats as it did another is filled into that row's shape. "In full" renders
and checks every row from nothing, as is done for the first rows of each shape and for rows that have none.
"""

from __future__ import annotations

import argparse
import cProfile
import platform
import pstats
import random
import time
from importlib.metadata import version
from pathlib import Path

import trl
from transformers.utils.chat_template_utils import render_jinja_template

import sftplug
from sftplug.data.render import compile_template

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = {"ChatML": "qwen2_5", "Llama-3": "llama3", "Qwen3": "qwen3", "Gemma-3": "gemma3", "gpt-oss": "gptoss"}
KWARGS = {"bos_token": "<s>", "eos_token": "</s>"}


def conversations(rows: int, turns: int) -> list[list[dict[str, str]]]:
    """Return `rows` conversations of `turns` messages of about 300 characters."""
    rng = random.Random(0)
    words = "the a of to and in that it is was for on are with as his they be at one".split()  # noqa: SIM905
    roles = ("user", "assistant")

    def text() -> str:
        return " ".join(rng.choice(words) for _ in range(80)) + "."

    return [[{"role": roles[turn % 2], "content": text()} for turn in range(turns)] for _ in range(rows)]


def best_time(function, rows, repeats: int = 5) -> float:
    """Return the least of several times of calling `function` on every row."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        for row in rows:
            function(row)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"sftplug {sftplug.__version__}, transformers {version('transformers')}, jinja2 {version('jinja2')}\n")
    print("| template | turns | plain rows/s | with spans rows/s | times | in full rows/s | times |")
    print("|---|---|---|---|---|---|---|")
    for name, file in TEMPLATES.items():
        template = compile_template((FOLDER / f"{file}.jinja").read_text(), name=name)
        for turns in (4, 12):
            rows = conversations(options.rows, turns)
            plain = best_time(
                lambda row, t=template.source: render_jinja_template([row], chat_template=t, **KWARGS), rows
            )
            spans = best_time(lambda row, t=template: t.render(row, **KWARGS), rows)
            full = best_time(lambda row, t=template: t.analyse(row, **KWARGS), rows)
            cells = [name, turns, f"{options.rows / plain:,.0f}"]
            for seconds in (spans, full):
                cells += [f"{options.rows / seconds:,.0f}", f"{seconds / plain:.2f}"]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    if options.profile:
        profile = cProfile.Profile()
        rows = conversations(options.rows, 12)
        profile.runcall(lambda: [template.analyse(row, **KWARGS) for row in rows])
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
