"""Writes down the moments of a run, a line each, into `moments.jsonl` in its folder."""

import json
from pathlib import Path
from typing import Any

from sftplug import Recipe, RunDirectory, hookimpl, measure

seen: list[dict[str, Any]] = []


@hookimpl
def sftplug_recipe_loaded(recipe: Recipe) -> None:
    seen[:] = [{"moment": "loaded", "adapter": recipe.adapter.type}]


@hookimpl
def sftplug_dataset_prepared(recipe: Recipe, ledger: Any) -> None:
    kept = {split: account.kept for split, account in ledger.accounts()}
    seen.append({"moment": "prepared", "kept": kept})


@hookimpl
def sftplug_trainer_created(recipe: Recipe, trainer: Any) -> None:
    size = measure(trainer.model)
    seen.append({"moment": "created", "trained": size.trainable, "of": size.total})


@hookimpl
def sftplug_run_finished(recipe: Recipe, result: Any) -> None:
    run = RunDirectory.open(Path(recipe.output))
    seen.append({"moment": "finished", "loss": result.loss, "tokens": result.tokens, "folder": str(run.path)})
    (run.path / "moments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in seen))


@hookimpl
def sftplug_run_failed(recipe: Recipe, error: BaseException) -> None:
    (Path(recipe.output) / "failed.json").write_text(json.dumps(type(error).__name__))
