"""What a recipe leaves open is settled once, when a run begins: whoever goes on with the run takes it from the record.

So a run goes on as it was begun where an adapter, the machine or TRL would choose otherwise today.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sftplug.errors import RunError
from sftplug.recipe.defaults import OF_TRL, STATED, is_default
from sftplug.recipe.problems import origin_of
from sftplug.recipe.train_options import own_default
from sftplug.recipe.yaml import Tree

if TYPE_CHECKING:
    from sftplug.recipe import LoadedRecipe
    from sftplug.run.directory import RunDirectory


def as_begun(loaded: LoadedRecipe, directory: RunDirectory) -> LoadedRecipe:
    """Return `loaded` with what it leaves open, and left open when the run in `directory` began, as it was then."""
    before, train = begun_with(directory, loaded.recipe.train)["train"], dict(loaded.recipe.train)
    now, then = _origins_now(loaded), _origins_then(directory)
    origins = dict(loaded.tree.origins)
    for name in {**train, **before}:
        if is_default(now.get(name, "default")) and is_default(then.get(name, OF_TRL)):
            train.pop(name, None)
            if name in before:
                train[name], origins["train", name] = before[name], then.get(name, OF_TRL)
    tree = Tree({**loaded.tree.data, "train": train}, origins)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"train": train}), tree=tree)


def begun_with(directory: RunDirectory, names: Iterable[str] = STATED) -> dict[str, Any]:
    """Return the recipe that the run in `directory` recorded when it began.

    Of the trainer's options in `names`, those that it does not hold had TRL's own defaults: it was begun before a
    recipe stated them.
    """
    recipe = directory.recipe()
    own = {name: value for name in names if (value := own_default(name)) is not None}
    return {**recipe, "train": {**own, **recipe["train"]}}


def settled(loaded: LoadedRecipe) -> dict[str, Any]:
    """Return what is settled of `loaded` where it may be left open, as plain data."""
    plain: dict[str, Any] = json.loads(json.dumps({"train": loaded.recipe.train}, default=str))
    return plain


def with_settled(loaded: LoadedRecipe, options: Mapping[str, Any]) -> LoadedRecipe:
    """Return `loaded` with what another process has `settled`."""
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"train": options["train"]}))


def changes(before: LoadedRecipe, begun: LoadedRecipe) -> Iterator[str]:
    """Yield a sentence for each value that would be another one if the run began today."""
    old, new = begun.recipe.train, before.recipe.train
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield (
                f"train.{name} is {old.get(name)}, as the run was begun ({_origin(begun, name)}); a new one would get "
                f"{new.get(name)} ({_origin(before, name)})"
            )


def _origin(loaded: LoadedRecipe, name: str) -> str:
    return origin_of(loaded.tree, ("train", name)) if name in loaded.recipe.train else OF_TRL


def _origins_now(loaded: LoadedRecipe) -> Mapping[str, str]:
    return {name: _origin(loaded, name) for name in loaded.recipe.train}


def _origins_then(directory: RunDirectory) -> Mapping[str, str]:
    """Return where each option of the trainer came from when the run began; an option of several values, once."""
    found: dict[str, str] = {}
    with suppress(RunError):
        for path, origin in directory.origins().items():
            section, _, rest = path.partition(".")
            if section == "train":
                found.setdefault(rest.partition(".")[0].partition("[")[0], origin)
    return found
