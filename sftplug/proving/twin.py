"""A recipe whose model is a tiny twin with random weights: its rows and their masks, two steps, a merge, a reload."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError, TrainingError
from sftplug.model.architectures import auto_class
from sftplug.plugin.calls import label
from sftplug.proving.shapes import ModelShape, family_template

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe

_ROWS = [
    [f"Which is the number after {number}?", f"It is {number + 1}.", "And before?", f"It is {number - 1}, of course."]
    for number in range(21, 93, 9)
]
"""What the twin is trained on: questions and replies in turn. None is part of another."""
_STEPS = 2
_ROUNDED = 0.1
"""How far the logits of the merged twin may be from its adapter's, as a share of their deviation: those of a model as
small and random are near each other, and bfloat16 rounds them by up to 8 %, with Gemma 4. A wrong merge is tens off."""


def overrides_for_twin(recipe: LoadedRecipe, shape: ModelShape, folder: Path) -> list[str]:
    """Return what makes a recipe train a twin on a few rows in `folder`, and leaves all else as it is."""
    rows = folder / "rows.jsonl"
    if not rows.is_file():
        rows.write_text("".join(json.dumps({"messages": _messages(texts)}) + "\n" for texts in _ROWS), encoding="utf-8")
    template = family_template(shape.template) if shape.template is not None else None
    own = recipe.recipe.chat_template.type == "tokenizer"
    build: dict[str, Any] = {"type": "random", "config": dict(shape.twin)}
    if own and template is not None:
        build |= {"control_tokens": template.tokens, "eos_token": template.eos, "bos_token": template.bos}
        build |= {"chat_template": template.source}
    optimizer = str(recipe.recipe.train.get("optim") or "")
    given = {
        "model": {"build": build},
        "data.train": [{"path": str(rows), "format": "messages"}],
        "data.eval": [],
        "data.eval_fraction": 0.5,
        "data.max_length": 1024,
        **({"launch": None} if recipe.recipe.launch is not None else {}),
        "train.max_steps": _STEPS,
        "train.logging_steps": 1,
        "train.per_device_train_batch_size": 2,
        "train.gradient_accumulation_steps": 1,
        "train.warmup_steps": 0,
        # Nothing is paged without a GPU, and callbacks such as `samples` would have the twin talk.
        **({"train.optim": optimizer.removeprefix("paged_")} if optimizer else {}),
        "callbacks": [],
        **({"chat_template": "chatml"} if own and template is None else {}),
    }
    return [f"{key}={json.dumps(value)}" for key, value in given.items()]


def _messages(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


def trained_text(recipe: LoadedRecipe) -> tuple[Mapping[str, Sequence[str]], str]:
    """Return the questions and replies of the rows, by role, and all that is trained of them.

    Raises what `prepare` raises where a mask fails its check.
    """
    from sftplug.api.rows import prepare

    prepared = prepare(recipe, quiet=True)
    labels = [row["labels"] for rows in (prepared.train, prepared.eval) for row in rows or ()]
    trained = [prepared.tokenizer.decode([label for label in row if label != -100]) for row in labels]
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    for message in (message for texts in _ROWS for message in _messages(texts)):
        said[message["role"]].append(message["content"])
    return said, "\n".join(trained)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of training a twin."""

    loss: float
    text: str


_ALIKE = ("optim", "bf16", "fp16", "gradient_checkpointing")
"""Options of the trainer that decide what code runs."""
_TRAINED: dict[tuple[str, Path], Trained] = {}


def train_twin(recipe: LoadedRecipe, folder: Path) -> Trained:
    """Train a twin, merge what it has learned, and load it by transformers alone; once for all recipes alike.

    Raises TrainingError where no weight moves, ModelError where what is saved is not what was trained.
    """
    key = (_key(recipe), folder)
    if key not in _TRAINED:
        _TRAINED[key] = _train(recipe, folder / key[0])
    return _TRAINED[key]


def _key(recipe: LoadedRecipe) -> str:
    """Return a hash of what recipes have alike that prove each other: rates, epochs and rows are not among it."""
    said = recipe.recipe.model_dump(mode="json", exclude={"output", "train", "data"})
    said["how"] = [recipe.recipe.data.packing, *(recipe.recipe.train.get(name) for name in _ALIKE)]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _train(recipe: LoadedRecipe, folder: Path) -> Trained:
    from sftplug.api.runs import train

    run = train(recipe.again(f"output={folder / 'run'}"), show=False)
    norms = [entry["grad_norm"] for entry in run.log if "grad_norm" in entry]
    if len(norms) != _STEPS or not all(0 < norm < math.inf for norm in norms):
        raise TrainingError(f"the gradients of the twin's {_STEPS} steps have the norms {norms}.")
    if recipe.recipe.adapter.trains_base:
        _reload(folder / "run")
        return Trained(run.loss, f"{_STEPS} steps, loss {run.loss:.2f}; loaded again by transformers")
    record = run.merge(folder / "merged", data=_rows_of(recipe), tolerance=_ROUNDED)
    _reload(folder / "merged")
    apart = record["difference"]["relative"]
    return Trained(
        run.loss, f"{_STEPS} steps, loss {run.loss:.2f}; merged, {apart:.1%} off; loaded again by transformers"
    )


def _rows_of(recipe: LoadedRecipe) -> str:
    return label(recipe.recipe.data.train[0].source)


def _reload(folder: Path) -> None:
    """Load what was saved as somebody does who has no sftplug. Raises ModelError where a weight is missing or left."""
    import torch
    from transformers import AutoConfig

    kind = auto_class(AutoConfig.from_pretrained(folder))
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    wrong = {key: sorted(info[key]) for key in ("missing_keys", "unexpected_keys") if info[key]}
    with torch.no_grad():
        logits = model(torch.arange(5, 25)[None]).logits
    if wrong or not bool(torch.isfinite(logits).all()):
        raise ModelError(f"what the twin saved is not a whole model: {re.sub('[{}]', '', str(wrong)) or 'no numbers'}")
