"""Is what is served what was trained: a run's exports, read by the engines that are there.

``python benchmarks/serving.py RUN --outtypes f16 q8_0 --json FILE``: RUN is the folder of a finished run, such as
that of ``sftplug train quickstart`` on real weights. Each type of weights is exported by ``gguf`` and read by each
engine that is installed (llama.cpp by ``make serving``; transformers' reader), and compared with the trained model: the
tokens of rendered prompts and conversations, which must be equal, the logits on held-out rows, and greedy replies.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import sftplug
from sftplug.ship import proof

LIBRARIES = ("torch", "transformers", "gguf", "llama-cpp-python")


def main() -> None:
    """Export, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--outtypes", nargs="+", default=["auto", "f16", "q8_0", "q5_1", "q4_0"])
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    proof.PROMPTS = options.prompts
    engines = ["transformers", *(["llama.cpp"] if find_spec("llama_cpp") else [])]
    cells = [cell for outtype in options.outtypes for cell in exported(options.run, outtype, engines)]
    said = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name)))
    print(f"{datetime.date.today()}, Python {platform.python_version()}, {said}\n\n{table(cells)}")
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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
