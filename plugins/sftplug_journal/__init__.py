"""A journal of each run: what was done with it, when and by which command, a line of JSON each.

``plugins: [journal]`` in a recipe, or in a house file for all recipes, puts it in use; the section ``journal`` of the
recipe says what it leaves out, and what every line has besides.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import sftplug

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from sftplug import MomentContext, Recipe, RunResult, RunTrainer

JOURNAL = "journal.jsonl"


Moment = Literal[
    "training begins",
    "evaluated",
    "checkpoint saved",
    "training finished",
    "training failed",
    "merged",
    "exported",
    "pushed",
]


class Journal(sftplug.RecipeSection):
    """What the journal of a run leaves out, and what every line of it has besides."""

    type: Literal["journal"] = "journal"
    leave_out: tuple[Moment, ...] = ()
    """Moments that get no line, such as ``[evaluated, checkpoint saved]``."""
    note: dict[str, str] = sftplug.Field(default={}, examples=[{"team": "support"}])
    """Stands in every line, for whoever reads the journals of many runs: ``{team: support, ticket: T-17}``."""


@sftplug.hookimpl
def sftplug_recipe_sections() -> list[type[sftplug.RecipeSection]]:
    """Offer the section ``journal``."""
    return [Journal]


def note(recipe: Recipe, context: MomentContext, moment: Moment, **details: Any) -> None:
    """Add a line to the journal of a run; of what is done before there is one, nothing is written."""
    said = recipe.section(Journal)
    if context.folder is None or not context.folder.is_dir() or moment in said.leave_out:
        return
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "moment": moment,
        "command": context.command,
        "run": context.run,
        **({"resumed": True} if context.resumed else {}),
        **({"note": dict(said.note)} if said.note else {}),
        **details,
    }
    with (context.folder / JOURNAL).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(sftplug.without_secrets(line), ensure_ascii=False) + "\n")


@sftplug.hookimpl
def sftplug_trainer_created(recipe: Recipe, trainer: RunTrainer, context: MomentContext) -> None:
    """Note the beginning of a training."""
    if trainer.is_world_process_zero():
        note(recipe, context, "training begins")


@sftplug.hookimpl
def sftplug_evaluation_finished(
    recipe: Recipe, metrics: Mapping[str, float], step: int, context: MomentContext
) -> None:
    """Note what was measured."""
    note(recipe, context, "evaluated", step=step, metrics=dict(metrics))


@sftplug.hookimpl
def sftplug_checkpoint_saved(recipe: Recipe, checkpoint: Path, step: int, context: MomentContext) -> None:
    """Note the checkpoint."""
    note(recipe, context, "checkpoint saved", step=step, checkpoint=checkpoint.name)


@sftplug.hookimpl
def sftplug_run_finished(recipe: Recipe, result: RunResult, context: MomentContext) -> None:
    """Note the end of a training."""
    note(recipe, context, "training finished", loss=result.loss, tokens=result.tokens)


@sftplug.hookimpl
def sftplug_run_failed(recipe: Recipe, error: BaseException, context: MomentContext) -> None:
    """Note why a run stopped."""
    note(recipe, context, "training failed", error=f"{type(error).__name__}: {error}".removesuffix(": "))


@sftplug.hookimpl
def sftplug_model_merged(recipe: Recipe, folder: Path, record: Mapping[str, Any], context: MomentContext) -> None:
    """Note where the merged model is."""
    note(recipe, context, "merged", folder=str(folder), dtype=record["dtype"])


@sftplug.hookimpl
def sftplug_model_exported(recipe: Recipe, exporter: str, target: Path, context: MomentContext) -> None:
    """Note where an exporter wrote."""
    note(recipe, context, "exported", exporter=exporter, target=str(target))


@sftplug.hookimpl
def sftplug_model_pushed(recipe: Recipe, url: str, files: Sequence[str], context: MomentContext) -> None:
    """Note what was published, and where."""
    note(recipe, context, "pushed", url=url, files=list(files))
