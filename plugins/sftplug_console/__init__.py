"""The story of a run, in the terminal: what will run, what became of the rows, what is trained, how the loss fell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sftplug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sftplug import Ledger, Recipe, RunResult, RunTrainer


@sftplug.hookimpl
def sftplug_commands() -> Mapping[str, Callable[..., Any]]:
    """Offer ``sftplug curve``."""
    from sftplug_console.command import curve

    return {"curve": curve}


@sftplug.hookimpl
def sftplug_recipe_loaded(recipe: Recipe, origins: Mapping[str, str]) -> None:
    """Show what was chosen, and where it comes from."""
    from sftplug_console.tables import show_recipe

    show_recipe(recipe, origins)


@sftplug.hookimpl
def sftplug_dataset_prepared(ledger: Ledger) -> None:
    """Show what became of the rows."""
    from sftplug_console.tables import show_ledger

    show_ledger(ledger)


@sftplug.hookimpl
def sftplug_trainer_created(recipe: Recipe, trainer: RunTrainer) -> None:
    """Show what is trained, and how far it is from now on; of several processes, the main one."""
    from sftplug_console.progress import TrainingProgress
    from sftplug_console.tables import show_size

    if not trainer.is_world_process_zero():
        return
    show_size(recipe, sftplug.count_parameters(trainer.model))
    progress = TrainingProgress(trainer)
    trainer.add_callback(progress)
    trainer.when_stopped = [*trainer.when_stopped, progress.take_away]


@sftplug.hookimpl
def sftplug_run_finished(result: RunResult) -> None:
    """Show how the loss fell and where the result is."""
    from sftplug_console.tables import show_result

    show_result(result)


@sftplug.hookimpl
def sftplug_run_failed(error: BaseException) -> None:
    """Say that nothing was saved."""
    from sftplug_console.tables import show_failure

    show_failure(error)
