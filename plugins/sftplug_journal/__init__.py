"""A journal of each run: what was done with it, when and by which command, a line of JSON each.

It offers nothing to choose: ``plugins: [journal]`` in a recipe, or in a house file for all recipes, puts it in use.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sftplug

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from sftplug import MomentContext, RunResult, RunTrainer

JOURNAL = "journal.jsonl"


def note(context: MomentContext, moment: str, **details: Any) -> None:
    """Add a line to the journal of a run; of what is done before there is one, nothing is written."""
    if context.folder is None or not context.folder.is_dir():
        return
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "moment": moment,
        "command": context.command,
        "run": context.run,
        **({"resumed": True} if context.resumed else {}),
        **details,
    }
    with (context.folder / JOURNAL).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(sftplug.without_secrets(line), ensure_ascii=False) + "\n")


@sftplug.hookimpl
def sftplug_trainer_created(trainer: RunTrainer, context: MomentContext) -> None:
    """Note the beginning of a training."""
    if trainer.is_world_process_zero():
        note(context, "training begins")


@sftplug.hookimpl
def sftplug_evaluation_finished(metrics: Mapping[str, float], step: int, context: MomentContext) -> None:
    """Note what was measured."""
    note(context, "evaluated", step=step, metrics=dict(metrics))


@sftplug.hookimpl
def sftplug_checkpoint_saved(checkpoint: Path, step: int, context: MomentContext) -> None:
    """Note the checkpoint."""
    note(context, "checkpoint saved", step=step, checkpoint=checkpoint.name)


@sftplug.hookimpl
def sftplug_run_finished(result: RunResult, context: MomentContext) -> None:
    """Note the end of a training."""
    note(context, "training finished", loss=result.loss, tokens=result.tokens)


@sftplug.hookimpl
def sftplug_run_failed(error: BaseException, context: MomentContext) -> None:
    """Note why a run stopped."""
    note(context, "training failed", error=f"{type(error).__name__}: {error}".removesuffix(": "))


@sftplug.hookimpl
def sftplug_model_merged(folder: Path, record: Mapping[str, Any], context: MomentContext) -> None:
    """Note where the merged model is."""
    note(context, "merged", folder=str(folder), dtype=record["dtype"])


@sftplug.hookimpl
def sftplug_model_exported(exporter: str, target: Path, context: MomentContext) -> None:
    """Note where an exporter wrote."""
    note(context, "exported", exporter=exporter, target=str(target))


@sftplug.hookimpl
def sftplug_model_pushed(url: str, files: Sequence[str], context: MomentContext) -> None:
    """Note what was published, and where."""
    note(context, "pushed", url=url, files=list(files))
