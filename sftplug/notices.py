"""What is no error in a recipe, and what its owner should know all the same, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from sftplug.recipe import LoadedRecipe
from sftplug.recipe.defaults import suits
from sftplug.recipe.problems import origin_of

FAR = 10.0
"""A rate that is so many times what is usual, or that part of it, is told."""


def notices(loaded: LoadedRecipe) -> list[str]:
    """Return a sentence for everything in the recipe that is obeyed, and has a price that is not to be seen in it."""
    return [*_far_rate(loaded)]


def _far_rate(loaded: LoadedRecipe) -> Iterator[str]:
    """A rate that was copied from another sort of training learns nothing that shows, or spoils the model."""
    recipe = loaded.recipe
    rate, usual = recipe.train.get("learning_rate"), suits(recipe).get("learning_rate")
    if not rate or not usual or usual / FAR * (1 + 1e-9) < rate < usual * FAR * (1 - 1e-9):
        return
    origin = origin_of(loaded.tree, ("train", "learning_rate"))
    said = f"train.learning_rate ({origin}): {rate:g} is {_times(rate / usual)} what is usual for adapter"
    what = f"{said} {recipe.adapter.type}, {usual:g}."
    if rate < usual:
        yield f"{what} The run may learn nothing that shows: set `train.learning_rate: {usual:g}`."
    else:
        yield f"{what} It may spoil a pretrained model, though very small models stand higher rates than large ones."


def _times(factor: float) -> str:
    return f"{factor:,.3g} times" if factor >= 1 else f"1/{1 / factor:,.3g} of"
