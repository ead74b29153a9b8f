"""Publish what a run has trained, where its policies let it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.errors import RunError, SftplugError
from sftplug.recipe.house import House, house_above, house_of_record
from sftplug.run import RunDirectory
from sftplug.run.left_out import load_finished
from sftplug.ship.merge import run_of
from sftplug.ship.tuned import open_finished
from sftplug.types.moment import MomentContext

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.ship.push import Pushed


def push(folder: str | Path, repo: str, *, private: bool = False, without: Iterable[str] = ()) -> Pushed:
    """Publish the model, tokenizer and card of a finished run, or a merged model, in the repository `repo` of the Hub.

    `repo` is ``NAME`` or ``OWNER/NAME``; a new one is `private` on request. The token is that of ``hf auth login``.
    `without` are names of plugins that are not loaded. Returns the ``.url`` and the ``.files``: checkpoints and the
    record of the run, which names paths and quotes rows, stay here. Raises RunError when there is no token, no model,
    or when the Hub refuses; ModelError for an adapter whose base nobody else has; RecipeError where a policy is
    against it.
    """
    recipe = _recipe_of(Path(folder), tuple(without))
    return push_run(Path(folder), repo, recipe, private=private)


def push_run(folder: Path, repo: str, recipe: LoadedRecipe | None, *, private: bool) -> Pushed:
    """Publish what is in `folder`; `recipe`, whose policies have been asked, is what it was trained with."""
    from sftplug.ship.push import push as publish

    pushed = publish(folder, repo, private=private)
    if recipe is not None:
        done = f"The model is published all the same: {pushed.url}."
        recipe.call_after("sftplug_model_pushed", done, url=pushed.url, files=pushed.files)
    return pushed


def _recipe_of(folder: Path, without: tuple[str, ...]) -> LoadedRecipe | None:
    """Return the recipe of a run, or of the one that a merged model comes from, whose policies have been asked.

    None where it takes no part in this. Raises RunError where policies are in force and there is no recipe to ask them
    about.
    """
    run = folder if RunDirectory(folder).exists() else run_of(folder)
    if run is None or not RunDirectory(run).exists():
        if (house := house_above(folder)).has_policies:
            raise RunError(_nothing_to_ask(house, folder, run))
        return None
    directory = open_finished(run)
    try:
        found = load_finished(directory, without=without)[0]
    except SftplugError:
        # To publish takes none of its components: one that cannot be had matters only where policies are asked.
        if house_of_record(run / "recipe.yaml").has_policies or directory.recipe().get("policies"):
            raise
        return None
    context = MomentContext("push", directory.state().id or None, folder=run)
    return replace(found.for_command("push"), context=context)


def _nothing_to_ask(house: House, folder: Path, run: Path | None) -> str:
    gone = "and is not known to come from a run" if run is None else f"and the run that it comes from, {run}, is gone"
    return (
        f"the policies of {house.file} are asked about a recipe, {folder} has none {gone}. Push the folder of a "
        "finished run, or what `sftplug merge` makes of it."
    )
