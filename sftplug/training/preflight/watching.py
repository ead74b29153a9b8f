"""The recipe's callbacks, made once before anything is loaded: whether they can be, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftplug.errors import SftplugError
from sftplug.plugin.calls import trainer_callback
from sftplug.plugin.errors import describe
from sftplug.recipe.problems import origin_of

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.recipe.model import Recipe


def failing_callbacks(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence for each callback that cannot be made here."""
    for index, callback in enumerate(recipe.callbacks):
        try:
            trainer_callback(callback)
        except SftplugError as error:
            yield f"callbacks[{index}]: {error}"


def forgotten(loaded: LoadedRecipe) -> Iterator[str]:
    """Yield a sentence for each object that a callback begins with, and a checkpoint cannot hold.

    Whether it changes is not known before there is a step: what is seen to change then stops the run.
    """
    from sftplug.training.callback_state import beyond_checkpoints

    train = loaded.recipe.train
    if train.get("save_strategy") == "no" or train.get("save_only_model"):
        return  # nothing is to be resumed
    for index, callback in enumerate(loaded.recipe.callbacks):
        try:
            made = trainer_callback(callback)
        except SftplugError:
            continue  # it is told as a problem
        for name, value in beyond_checkpoints(made):
            yield (
                f"callbacks[{index}] ({origin_of(loaded.tree, ('callbacks', index))}): {describe(callback)} holds "
                f"`{name}`, with a {type(value).__name__} in it, which a checkpoint cannot hold: a run that resumes "
                "begins with a new one. If that matters, let it remember numbers, texts, lists, dicts or tensors, or "
                "implement transformers' `ExportableState`."
            )
