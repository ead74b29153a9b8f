"""The page of what was proven of each shipped recipe, from ``recipes/proofs.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sftplug.proving import STAGES
from sftplug.recipe.find import recipes_folder
from sftplug.recipe.shipped import every_recipe

_MARKS = {"proven": "✓", "not proven": "-", "failed": "✗"}
_INTRODUCTION = """\
# Recipes, and what is proven of them

`sftplug recipes` lists what is shipped; `--memory 24GB` keeps what is made for GPUs of so much in all, `--model qwen3`
what has this in its name or its model's, `--json` prints it for a program. From Python it is
`sftplug.recipes(memory="24GB", model="qwen3")`.

No weights are needed to know most of what can be wrong with a recipe. `sftplug recipes --proof` runs what this page
shows, and CI runs it with every change:

configuration
: transformers makes the model of its published shape (`recipes/shapes`), without numbers. It has as many parameters as
  its makers count, within 3 %; the adapter finds its targets; the tiny twin has the same sorts of modules.

template
: On the family's own chat template, as the installed TRL ships it, every reply is trained and no question is.

training
: The twin, random weights in a model of that architecture, trains two steps by the recipe's adapter, quantization,
  masks, template and optimizer, each with a gradient; the adapter is merged, and what was saved is loaded by
  transformers alone. Recipes that are alike in this share a twin.

memory
: The [plan](plan.md) of the recipe at full size, every row as long as `data.max_length` allows, against the hardware
  that the recipe names. A GB is 10⁹ bytes, and the upper end counts.

**Not proven of any**: that the weights on the Hub are of that shape, the model's real tokenizer, that a GPU takes what
the plan counts, how fast it is, how well the model learns. Callbacks and `launch` are left out where the twin trains.
Where TRL ships no copy of a model's chat template, the twin is trained with ChatML, and the masks on its own template
were not seen: `sftplug check` looks at them once the tokenizer is there. Recipes that build their model on the spot
are not listed: they run as they are.
"""


def proofs_page() -> str:
    """Return the page: a row a recipe."""
    record = json.loads((recipes_folder() / "proofs.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    proven = sum(_all_proven(entry) for entry in record["recipes"].values())
    return "\n".join(
        [
            _INTRODUCTION,
            f"{len(record['recipes'])} recipes, {proven} of them proven in all four stages, with {versions}. What is",
            "marked ✓ is proven, what is marked - is not.",
            "",
            f"| recipe | model | hardware | {' | '.join(STAGES)} |",
            f"|{'---|' * (3 + len(STAGES))}",
            *_rows(record["recipes"]),
            "",
        ]
    )


def _rows(proven: Mapping[str, Any]) -> Iterator[str]:
    hardware = {recipe.name: recipe.in_short() for recipe in every_recipe()}
    for name, entry in proven.items():
        stages = [entry["stages"][stage] for stage in STAGES]
        cells = [f"{_MARKS[stage['outcome']]} {stage['text']}" for stage in stages]
        yield f"| `{name}` | {entry['model']} | {hardware[name]} | {' | '.join(cells)} |"


def _all_proven(entry: Mapping[str, Any]) -> bool:
    return all(stage["outcome"] == "proven" for stage in entry["stages"].values())
