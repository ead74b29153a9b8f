"""What a recipe leaves open is settled once, when a run begins: whoever resumes the run takes it from the record.

So a run is resumed as it was begun where an adapter, the machine or TRL would choose otherwise today.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sftplug.errors import RunError
from sftplug.plugin.components import Component, Quantization, give_sections, sections_given
from sftplug.recipe.defaults import OF_TRL, is_default
from sftplug.recipe.origins import origin_by_path
from sftplug.recipe.problems import origin_of
from sftplug.recipe.train_options import own_default
from sftplug.recipe.upgrade import upgrade_options
from sftplug.recipe.yaml import Path_, Tree, dotted, leaves

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run.directory import RunDirectory


def as_begun(loaded: LoadedRecipe, directory: RunDirectory) -> LoadedRecipe:
    """Return `loaded` with what it leaves open, and left open when the run in `directory` began, as it was then."""
    (before, _), then = begun_with(directory, loaded), _origins_then(directory)
    tree = loaded.tree.copy()
    options = {
        "train": _train(loaded, before["train"], then, tree.origins),
        "quantization": _quantization(loaded, before["quantization"], then, tree.origins),
        **{section: _plain_options(section, loaded, before, then) for section in _SECTIONS},
    }
    for section, values in options.items():
        tree.data[section] = {**tree.data.get(section, {}), **values} if section in _SECTIONS else values
    return with_settled(replace(loaded, tree=tree), options)


def _train(
    loaded: LoadedRecipe, before: Mapping[str, Any], then: Mapping[str, str], origins: dict[Path_, str]
) -> dict[str, Any]:
    """Return the options of the trainer, and note in `origins` where those come from that are taken from `before`."""
    train = dict(loaded.recipe.train)
    for name in {**train, **before}:
        was = then.get(f"train.{name}", OF_TRL)
        # Trained at 2e-4 because an older version of the adapter said so: it stays that, though the adapter says 1e-4
        # now. Nobody asked for either. What the recipe itself says, now or then, is compared elsewhere.
        if is_default(_origin(loaded, name)) and is_default(was):
            train.pop(name, None)
            if name in before:
                train[name], origins["train", name] = before[name], was
    return train


def _quantization(
    loaded: LoadedRecipe, before: Mapping[str, Any], then: Mapping[str, str], origins: dict[Path_, str]
) -> dict[str, Any]:
    """Return the quantization with its options, and note in `origins` where what is taken from `before` comes from.

    That is the whole of it where its name was left open, else the options that were left to the device.
    """
    now = _dumped(loaded.recipe.quantization)
    # Left open in both: the whole quantization is that of the beginning. Named, and the same as then: its options that
    # were left open are. Named, and another: nothing is taken, and the difference is refused elsewhere.
    if is_default(origins.get(("quantization",), "")) and is_default(_was(then, "quantization.type")):
        taken, now = dict(before), {}
    elif now["type"] == before["type"]:
        open_now = [name for name in before if is_default(origins.get(("quantization", name), ""))]
        taken = {name: before[name] for name in open_now if is_default(_was(then, f"quantization.{name}"))}
    else:
        taken = {}
    origins.update({("quantization", name): _was(then, f"quantization.{name}") for name in taken})
    return {**now, **taken}


_SECTIONS = ("data", "spans")
"""Sections of the core whose options are one value each, but for those that hold components."""


def _plain_options(
    section: str, loaded: LoadedRecipe, before: Mapping[str, Any], then: Mapping[str, str]
) -> dict[str, Any]:
    """Return the options of a section of the core that are left open, and were when the run began, as they were then.

    Those only that are others today: rows of 0.1.0 were escaped by default, ``escape``, and a new run has ``auto``.
    """
    now = origin_by_path(loaded)
    return {
        name: before[section][name]
        for name, value in _plain(loaded, section).items()
        if before[section].get(name, value) != value
        and is_default(now.get(f"{section}.{name}", "default"))
        and is_default(_was(then, f"{section}.{name}"))
    }


def _plain(loaded: LoadedRecipe, section: str) -> dict[str, Any]:
    """Return the options of a section of the core that hold one value."""
    options = getattr(loaded.recipe, section).model_dump(mode="json")
    return {name: value for name, value in options.items() if not isinstance(value, list | dict)}


def _was(then: Mapping[str, str], path: str) -> str:
    return then.get(path, "default")


_ONCE = 0.01
"""What `data.max_loss` was by default when it could not be null."""


def begun_with(directory: RunDirectory, loaded: LoadedRecipe) -> tuple[dict[str, Any], list[str]]:
    """Return the recipe that the run in `directory` recorded when it began, and what of it was upgraded since.

    Of the trainer's options that `loaded` has, those that it does not hold had TRL's own defaults: it was begun before
    a recipe stated them.
    """
    recipe = directory.recipe()
    if recipe["data"].get("max_loss") == _ONCE and is_default(_origins_then(directory).get("data.max_loss", "default")):
        recipe["data"]["max_loss"] = None  # which means the same, and does not hold for a policy that asks for the loss
    upgrades = upgrade_options(Tree(recipe), loaded.registry, directory.versions())
    own = {name: value for name in loaded.recipe.train if (value := own_default(name)) is not None}
    return {**recipe, "train": {**own, **recipe["train"]}}, upgrades


def settled(loaded: LoadedRecipe) -> dict[str, Any]:
    """Return what is settled of `loaded` where it may be left open, as plain data."""
    options = {
        "train": loaded.recipe.train,
        "quantization": _dumped(loaded.recipe.quantization),
        **{section: _plain(loaded, section) for section in _SECTIONS},
    }
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def with_settled(loaded: LoadedRecipe, options: Mapping[str, Any]) -> LoadedRecipe:
    """Return `loaded` with what was `settled` before, or by another process."""
    sections = {name: getattr(loaded.recipe, name).model_copy(update=options[name]) for name in _SECTIONS}
    update: dict[str, Any] = {"train": options["train"], **sections}
    if options["quantization"] != _dumped(loaded.recipe.quantization):
        kind = loaded.registry.classes()[Quantization][options["quantization"]["type"]]
        update["quantization"] = made = kind.model_validate(options["quantization"])
        give_sections(made, sections_given(loaded.recipe.quantization))
    return replace(loaded, recipe=loaded.recipe.model_copy(update=update))


def _dumped(component: Component) -> dict[str, Any]:
    return component.model_dump(mode="json", by_alias=True)


def changes(before: LoadedRecipe, begun: LoadedRecipe) -> Iterator[str]:
    """Yield a sentence for each value that would be another one if the run began today."""
    old, new = ({dotted(path): value for path, value in leaves(settled(loaded))} for loaded in (begun, before))
    was, now = (origin_by_path(loaded) for loaded in (begun, before))
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            yield (
                f"{path} is {old.get(path)}, as the run was begun ({was.get(path, OF_TRL)}); a new one would get "
                f"{new.get(path)} ({now.get(path, OF_TRL)})"
            )


def _origin(loaded: LoadedRecipe, name: str) -> str:
    """Return where an option of the trainer comes from that the recipe states, or might."""
    return origin_of(loaded.tree, ("train", name)) if name in loaded.recipe.train else OF_TRL


def _origins_then(directory: RunDirectory) -> dict[str, str]:
    """Return where each option came from when the run began; an option that holds several values stands there once."""
    found: dict[str, str] = {}
    with suppress(RunError):
        for path, origin in directory.origins().items():
            section, _, rest = path.partition(".")
            name = rest.partition(".")[0].partition("[")[0]
            found.setdefault(f"{section}.{name}", origin)
    return found
