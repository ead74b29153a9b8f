"""Train a recipe: the same run as the command, with its folder, record and resume."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftplug.api.recipes import Given, loaded
from sftplug.api.result import TrainedRun, open_run, results
from sftplug.api.rows import prepare
from sftplug.errors import ModelError, RunError, SftplugError
from sftplug.recipe.given import KEPT, write_tree
from sftplug.recipe.load import LoadedRecipe
from sftplug.recipe.origins import origin_by_path
from sftplug.run import RunDirectory
from sftplug.run.place import claimed, refuse_place
from sftplug.types.moment import MomentContext
from sftplug.types.result import RunResult
from sftplug.util.processes import is_launched, is_main, wait_for_all
from sftplug.util.text import visible


def train(recipe: Given, *, resume: bool = False, overwrite: bool = False, show: bool = True) -> TrainedRun:
    """Train a recipe, save the model or adapter to its ``output`` folder, and return what came of it.

    An unfinished run of the same recipe in that folder is resumed from its last checkpoint; `resume` demands one, and
    `overwrite` deletes the run that is there. With a ``launch`` section the run has processes of its own. `show` lets
    the console plugin tell the story of the run. An interrupt (Ctrl-C, or the stop button of a notebook) ends the step,
    saves a checkpoint and raises Interrupted: train again to resume. In processes that a launcher
    has started, all of them call it, and may call it again.

    Raises what `load`, `check` and `prepare` raise, RunError for a folder that cannot be used, TrainingError for a run
    that would do harm, LaunchError when one of several processes fails.
    """
    if resume and overwrite:
        raise ValueError("resume continues a run, overwrite deletes it: choose one.")
    from sftplug.run.recognized import begun_with_formats

    found = loaded(recipe, "train", begun=None if overwrite else begun_with_formats)
    run = run_recipe(found, resume=resume, overwrite=overwrite, show=show)
    if run is None:
        raise RunError(f"the run is over, and its folder {found.recipe.output} is on the main node.")
    return run


def run_recipe(recipe: LoadedRecipe, *, resume: bool, overwrite: bool, show: bool) -> TrainedRun | None:
    """Train a recipe, here or in processes of its own; None where its folder is on another node."""
    run: TrainedRun | None
    if recipe.recipe.launch is not None and not is_launched():
        _launch(recipe, resume=resume, overwrite=overwrite)
        run = open_run(recipe) if RunDirectory(Path(recipe.recipe.output)).exists() else None
    else:
        result, context = _train(_shown(recipe) if show else recipe, resume=resume, overwrite=overwrite)
        run = results(result, replace(recipe, context=context))
    if run is not None and recipe.recipe.evaluation.metrics:
        run = replace(run, replies=_measure(run))
    if run is not None and recipe.recipe.export:
        _export(run)
    return run


def _shown(recipe: LoadedRecipe) -> LoadedRecipe:
    """Return the recipe with the console plugin in use; of several processes, the main one says what is wrong."""
    if is_main():
        say(f"warning: {sentence}" for sentence in recipe.warnings())
        say(f"note: {sentence}" for sentence in recipe.told())
    return recipe.using("console")


def say(sentences: Iterable[str]) -> None:
    """Write sentences to the standard error, a line each."""
    for sentence in sentences:
        sys.stderr.write(f"{visible(sentence)}\n")


def _train(recipe: LoadedRecipe, *, resume: bool, overwrite: bool) -> tuple[RunResult, MomentContext]:
    """Train in this process, which may be one of several; return what came of it, and what was going on."""
    from sftplug.planning import notes_of_rows
    from sftplug.run import open_session
    from sftplug.training.preflight import problems_before_rows
    from sftplug.training.preflight.notices import notices
    from sftplug.training.train import join
    from sftplug.training.train import train as run

    join(recipe.recipe)
    with open_session(recipe, resume=resume, overwrite=overwrite) as session:
        recipe = session.loaded
        if is_main():
            recipe.call("sftplug_recipe_loaded", origins=origin_by_path(recipe))
        say(session.notes)
        if is_main():
            say([f"resuming from step {session.checkpoint.step}"] if session.checkpoint is not None else [])
            say(f"note: {notice}" for notice in notices(recipe))
        # Preparing many rows takes long: what cannot work anyway is said before.
        if problems := problems_before_rows(recipe.recipe):
            raise ModelError("\n".join(problems))
        prepared = prepare(recipe, quiet=not is_main())
        if is_main():
            say(f"note: {notice}" for notice in notes_of_rows(recipe, prepared))
        result = run(recipe, prepared, session)
    wait_for_all()  # what the main process saves is there; they stay together, for a program may train again
    return result, recipe.context


def _launch(recipe: LoadedRecipe, *, resume: bool, overwrite: bool) -> None:
    """Train in processes of their own, which read the recipe from the run's folder: this program may have no file.

    Raises LaunchError when one fails, and ModelError for a recipe that holds what no file can.
    """
    from sftplug.launch import node_rank, start

    launch = recipe.recipe.launch
    assert launch is not None
    if nowhere := recipe.nowhere_written():
        raise ModelError("\n".join(f"launch: {text}, and other processes need it. {_IN_A_FILE}" for text in nowhere))
    if not node_rank(launch):  # elsewhere, the run's folder may be another's, or not be there
        refuse_place(recipe, RunDirectory(Path(recipe.recipe.output)), resume=resume, overwrite=overwrite)
    flags = [*(["--resume"] if resume else []), *(["--overwrite"] if overwrite else [])]
    blocked = [option for name in recipe.asked.blocked for option in ("--no-plugin", name)]
    with _written(recipe, here=not node_rank(launch)) as file:
        start(recipe.recipe, launch, ["train", str(file), *flags, *blocked])


@contextmanager
def _written(recipe: LoadedRecipe, *, here: bool) -> Iterator[Path]:
    """Write the recipe for other processes, and remove it when they have ended: it may hold secrets.

    It is in the run's folder; of a run that is not `here` but on another node, in a temporary one.
    """
    if not here:
        with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
            write_tree(recipe.written, recipe.name, Path(folder) / KEPT, recipe.house.file)
            yield Path(folder) / KEPT
        return
    folder_of_run = Path(recipe.recipe.output).absolute()
    with claimed(folder_of_run):
        file = folder_of_run / KEPT
        write_tree(recipe.written, recipe.name, file, recipe.house.file)
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)


_IN_A_FILE = "Put it into a plugin file, and name that under `plugins:`."


def _export(run: TrainedRun) -> None:
    """Write the model in the forms that the recipe lists, in one process."""
    if is_launched():
        names = ", ".join(exporter.type for exporter in run.recipe.recipe.export) if is_main() else ""
        say([f"`sftplug export {run.output} NAME` writes the model as {names}, in one process."] if names else [])
        return
    for exporter in run.recipe.recipe.export:
        try:
            say([f"exported: {run.export(exporter)}"])
        except SftplugError as error:
            again = f"`sftplug export {run.output} {exporter.type}` writes it again."
            error.add_note(f"The run itself is over: its result is saved in {run.output}. {again}")
            raise


def _measure(run: TrainedRun) -> dict[str, Any] | None:
    """Let the model answer, in one process; what another launcher has started knows of no end of the others."""
    if not is_launched():
        try:
            return run.measure_replies()
        except SftplugError as error:
            output = run.output
            error.add_note(f"The run itself is over: its result is saved in {output}. `sftplug eval` measures it anew.")
            raise
    if is_main() and run.recipe.recipe.launch is None:
        say([f"`sftplug eval {run.output}` measures the replies, in one process."])
    return None
