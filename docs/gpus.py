"""Write README's table of GPUs and recipes, from what ``sftplug plan`` says: ``python docs/gpus.py``; ``--check``.

A plan reads a model's configuration and nothing else of it. Those of the table are in ``gpus/models.json``, as their
makers publish them, so that the table can be written without the network.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from marked import fill

import sftplug

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
MODELS = json.loads((DOCS / "gpus" / "models.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Row:
    """One line of the table: a GPU, the recipe for it, and the model of that recipe."""

    gpu: str
    memory: str
    device: str
    recipe: str
    model: str


ROWS = (
    Row("any with 6 GB", "6GB", "RTX3090", "qwen3/0.6b_qlora", "Qwen3-0.6B"),
    Row("T4, 16 GB", "16GB", "T4", "mistral/7b_qlora", "Mistral-7B-Instruct-v0.3"),
    Row("RTX 3090, RTX 4090, L4, A10: 24 GB", "24GB", "RTX3090", "qwen3/8b_qlora", "Qwen3-8B"),
    Row("the same", "24GB", "RTX3090", "qwen3/0.6b_full", "Qwen3-0.6B"),
    Row("A100, 40 GB", "40GB", "A100-40GB", "llama3.1/8b_lora", "Llama-3.1-8B-Instruct"),
    Row("A100, H100: 80 GB", "80GB", "H100", "llama3.1/70b_qlora", "Llama-3.1-70B-Instruct"),
)


def planned(row: Row) -> sftplug.PlanAnswer:
    """Return the plan of a row's recipe on its GPU. Raises ValueError where the recipe is for another model."""
    named = sftplug.load(row.recipe).recipe.model.name_or_path
    if named is None or not named.endswith(f"/{row.model}"):
        raise ValueError(f"{row.recipe} trains {named}, and the table says {row.model}")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODELS[row.model]), encoding="utf-8")
        return sftplug.plan(sftplug.load(row.recipe, f"model={folder}"), row.memory, device=row.device, rows=1000)


def line(row: Row) -> str:
    """Return a line of the table. Raises ValueError where the recipe does not fit its GPU."""
    answer = planned(row)
    if not answer.fits:
        raise ValueError(f"{row.recipe} does not fit in {row.memory}")
    total = answer.plan.memory.total
    return f"| {row.gpu} | `{row.recipe}` | {total.low / 1e9:.1f} to {total.high / 1e9:.1f} GB |"


def table() -> str:
    """Return the table."""
    head = ["| your GPU | a recipe for it | memory, estimated |", "|---|---|---|"]
    return "\n".join([*head, "| none | `quickstart`, a model of 135 million parameters | |", *map(line, ROWS)])


def main() -> None:
    """Write the table, or check it."""
    before = README.read_text(encoding="utf-8")
    now = fill(before, "gpus", table())
    if "--check" in sys.argv and now != before:
        sys.exit("README.md: the table of GPUs is stale. Run python docs/gpus.py")
    README.write_text(now, encoding="utf-8")


if __name__ == "__main__":
    main()
