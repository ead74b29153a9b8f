"""A finished run whose recipe cannot be read as a whole any more: what is done with it needs a part of it only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sftplug.errors import Problem, RecipeError

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run.directory import RunDirectory

STANDS_IN = {
    "masking": "masking=assistant",
    "loss": "loss=cross_entropy",
    "callbacks": "callbacks=[]",
    "evaluation": "evaluation.metrics=[]",
}
"""Section that a trained model can do without -> the override that stands in for it."""
PATCHES = {"patches": "patches=[]"}
"""The same of patches, where each of those of the run leaves what the model computes as it is."""


def load_finished(
    directory: RunDirectory, *overrides: str, without: Iterable[str] = ()
) -> tuple[LoadedRecipe, tuple[Problem, ...]]:
    """Return the recipe of a finished run, and what of it could not be read, in whose place something else stands.

    `without` are names of plugins that are not loaded. Raises RecipeError where what could not be read is more than
    training alone needs.
    """
    try:
        return directory.load_recipe(*overrides, rows=False, without=without), ()
    except RecipeError as error:
        sections = {re.split(r"[.\[]", problem.path)[0] for problem in error.problems}
        known = directory.state().patches
        idle = bool(known) and not any(patch["changes_logits"] for patch in known)
        stands_in = {**STANDS_IN, **(PATCHES if idle else {})}
        if not sections <= stands_in.keys():
            raise
        instead = [stands_in[section] for section in sorted(sections)]
        return directory.load_recipe(*instead, *overrides, rows=False, without=without), tuple(error.problems)


def says(problem: Problem) -> str:
    """Return what to tell of a part that could not be read and is not needed."""
    return f"{problem} The run was trained with it; this command does without."
