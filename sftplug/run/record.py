"""What a run keeps of its recipe: every value, where each came from, and the plugin files it names; no secrets."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.recipe.defaults import is_default
from sftplug.recipe.model import Recipe
from sftplug.recipe.named_plugins import is_plugin_file
from sftplug.recipe.origins import origin_at
from sftplug.recipe.yaml import dotted, leaves, write_yaml
from sftplug.run.files import COPIES, noting
from sftplug.run.paths import make_relative
from sftplug.storage.files import atomic_write
from sftplug.util.redact import without_secrets

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run.directory import RunDirectory


def record_recipe(directory: RunDirectory, loaded: LoadedRecipe) -> None:
    """Write the resolved recipe, the origin of every value, the plugins in use, and copies of plugin files."""
    _copy_plugins(directory, loaded)
    recipe = recorded(loaded.recipe)
    make_relative(recipe, loaded, directory)
    atomic_write(directory.path / "recipe.yaml", write_yaml(recipe))
    directory.write("origins.json", origins(recipe, loaded))
    directory.write("plugins.json", loaded.provenance())


def _copy_plugins(directory: RunDirectory, loaded: LoadedRecipe) -> None:
    for name in loaded.active:
        plugin = loaded.registry.plugins.loaded[name]
        if plugin.distribution == "file":
            (directory.path / COPIES).mkdir(exist_ok=True)
            copy = directory.path / COPIES / plugin.source.name
            if not (copy.exists() and copy.samefile(plugin.source)):
                with noting(directory.path):  # another recipe, once it is begun here, has other plugins
                    shutil.copyfile(plugin.source, copy)


def recorded(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as it is kept: plain data, plugin files as their copies, secrets left out."""
    data: dict[str, Any] = without_secrets(recipe.model_dump(mode="json", by_alias=True))
    data["plugins"] = [
        f"./{COPIES}/{Path(name).name}" if is_plugin_file(name) else name for name in map(str, data["plugins"])
    ]
    return data


def origins(recipe: Mapping[str, Any], loaded: LoadedRecipe) -> dict[str, str]:
    """Return dotted path -> where the value comes from, as `sftplug explain` says it, of every value in the record."""
    return {dotted(path): origin_at(loaded, path) for path, _ in leaves(recipe)}


_PLACES = (
    "output",
    # How many processes resume is compared with the checkpoint.
    "launch.processes",
    "launch.nodes",
    "launch.node_rank",
    "launch.main_process_ip",
    "launch.main_process_port",
)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each value that differs between two recorded recipes; what says where it runs may differ."""
    old, new = ({dotted(path): value for path, value in leaves(recipe)} for recipe in (before, now))
    paths = [path for path in dict.fromkeys([*old, *new]) if path not in _PLACES and not _changes_nothing(path)]
    return [
        f"{path}: {_shown(old, path)} -> {_shown(new, path)}"
        for path in paths
        if old.get(path, _Absent) != new.get(path, _Absent)
    ]


def _changes_nothing(path: str) -> bool:
    """Whether a value is of a policy, which forbids and changes nothing, or is what is merely known of a source."""
    return re.match(r"policies\b|data\.(train|eval)\[\d+\]\.meta\b", path) is not None


def gained(before: Mapping[str, Any], loaded: LoadedRecipe) -> dict[str, Any]:
    """Return dotted path -> value of the options that the record `before` does not know and `loaded` leaves open.

    They came with a later version of sftplug or of a plugin than the one that wrote the record; what was meant is their
    default. An option that the recipe names is another matter: it was not there before.
    """
    known = {dotted(path) for path, _ in leaves(before)}
    return {
        dotted(path): value
        for path, value in leaves(recorded(loaded.recipe))
        if dotted(path) not in known and not _changes_nothing(dotted(path)) and is_default(origin_at(loaded, path))
    }


class _Absent:
    """Stands for a value that is not there."""


def _shown(values: Mapping[str, Any], path: str) -> str:
    return repr(values[path]) if path in values else "(none)"
