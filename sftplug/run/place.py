"""The folder in which a run is to be: whether it may be there, and what is deleted to make room for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.errors import RunError
from sftplug.plugin.calls import merge_problems
from sftplug.recipe.given import KEPT
from sftplug.run.directory import RunDirectory
from sftplug.run.files import strangers
from sftplug.run.inputs import refuse_among_inputs, refuse_to_delete
from sftplug.run.longer import how_to_lengthen, longer
from sftplug.run.result import how_to_train_on
from sftplug.storage.lock import LOCK, OWNER
from sftplug.storage.writable import is_probe, refuse_unwritable
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe

_OF_STARTS = (LOCK, OWNER, KEPT)
"""What is there before a run begins."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make `folder`, which `refuse_place` has judged.

    When what is done meanwhile fails, the folders that were made are unmade if nothing is in them.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # there is something in it
                path.rmdir()
        raise


def refuse_unusable(loaded: LoadedRecipe, directory: RunDirectory) -> None:
    """Raise RunError where no run of the recipe may ever be, whatever the command is told. Nothing is left behind."""
    refuse_unwritable(directory.path)
    refuse_among_inputs(loaded.recipe, directory.path)
    if directory.path.is_dir() and not directory.exists():
        _refuse_strangers(directory.path)


def refuse_place(loaded: LoadedRecipe, directory: RunDirectory, *, resume: bool, overwrite: bool) -> None:
    """Raise RunError where no run may begin or go on. Nothing is locked to find out, and nothing is left behind."""
    refuse_unusable(loaded, directory)
    if not directory.exists():
        if resume:
            raise RunError(
                f"there is no run to resume in {directory.path}. Leave out {argument('--resume')} to begin one."
            )
    elif overwrite:
        refuse_to_delete(loaded.recipe, directory.path)
        _refuse_what_else_is_there(directory.path)
    elif is_finished(directory) and longer(loaded, directory) is None:
        raise RunError(
            f"{directory.path} holds a finished run. Choose another {argument('--output')}, or "
            f"{argument('--overwrite')} to delete it and begin again. "
            f"{how_to_lengthen(directory)}{how_to_train_on(directory.path, cannot_merge(loaded))}"
        )


def is_finished(directory: RunDirectory) -> bool:
    """Whether the run in a folder has come to its end."""
    return RunDirectory.open(directory.path).state().state == "finished"


def cannot_merge(loaded: LoadedRecipe) -> list[str]:
    """Return why the adapter of the recipe cannot become part of the weights."""
    return merge_problems(loaded.recipe.adapter, loaded.recipe.quantization, in_place=False)


def _refuse_strangers(folder: Path) -> None:
    """Refuse a folder with files that no run of ours wrote."""
    others = sorted(path.name for path in folder.iterdir() if path.name not in _OF_STARTS and not is_probe(path.name))
    if others:
        raise RunError(
            f"the output folder {folder} is not empty and holds no run: {_listed(others)}. Choose another "
            f"{argument('--output')}."
        )


def _refuse_what_else_is_there(folder: Path) -> None:
    """Refuse to delete a run whose folder holds what no run wrote."""
    if others := strangers(folder):
        raise RunError(
            f"{folder} holds what the run did not write: {_listed(others)}. Nothing was deleted: move it elsewhere, or "
            f"choose another {argument('--output')}."
        )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def clear(loaded: LoadedRecipe, directory: RunDirectory) -> None:
    """Delete a run, but for the copies of plugin files that are in use; `refuse_place` has seen what is there."""
    if not directory.exists():
        return
    plugins = [loaded.registry.plugins.loaded[name] for name in loaded.active]
    used = {plugin.source.resolve() for plugin in plugins if plugin.distribution == "file"}
    for path in sorted(directory.path.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        if path.is_symlink() or not path.is_dir():
            if path.name not in _OF_STARTS and path.resolve() not in used:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
