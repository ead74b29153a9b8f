"""What a run keeps of its recipe: every value, where each came from, and the plugin files it names; no secrets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.recipe.load import is_plugin_file
from sftplug.recipe.model import Recipe
from sftplug.recipe.problems import dotted
from sftplug.recipe.yaml import write_yaml
from sftplug.run.directory import RunDirectory
from sftplug.run.files import COPIES, noting
from sftplug.storage.files import atomic_write
from sftplug.util.redact import without_secrets

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe


def record_recipe(directory: RunDirectory, loaded: LoadedRecipe) -> None:
    """Write the resolved recipe, the origin of every value, the plugins in use, and copies of plugin files."""
    _copy_plugins(directory, loaded)
    recipe = recorded(loaded.recipe)
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


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield (path, value) of everything in plain data that holds nothing further."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    below = list(items)
    if not below:
        yield path, value
    for key, item in below:
        yield from leaves(item, (*path, key))


def origins(recipe: Mapping[str, Any], loaded: LoadedRecipe) -> dict[str, str]:
    """Return dotted path -> where the value was written, or ``default``."""
    return {dotted(path): _origin(path, loaded) for path, _ in leaves(recipe)}


def _origin(path: tuple[str | int, ...], loaded: LoadedRecipe) -> str:
    """Return the origin of the value, as it may have been written: in short, without its list, with a bare name."""
    written = loaded.tree.origins
    for shape in _spellings(path):
        if shape in written:
            return written[shape]
    # The name of a component is what its section says when it is written as one word.
    if path and path[-1] in ("type", "name_or_path"):
        return _origin(path[:-1], loaded)
    if path and isinstance(path[-1], int):
        return _origin(path[:-1], loaded)
    return "default"


def _spellings(path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the ways in which a recipe may write `path`: ``data.train[0].source.path`` is ``data.train.path`` too."""
    for shape in (path, tuple(part for part in path if part != "source")):
        yield shape
        yield tuple(part for part in shape if not isinstance(part, int))


_PLACES = (
    "output",
    # How many processes go on is compared with the checkpoint.
    "launch.processes",
    "launch.nodes",
    "launch.node_rank",
    "launch.main_process_ip",
    "launch.main_process_port",
)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each value that differs between two recorded recipes; what says where it runs may differ."""
    old, new = ({dotted(path): value for path, value in leaves(recipe)} for recipe in (before, now))
    paths = [path for path in dict.fromkeys([*old, *new]) if path not in _PLACES]
    return [
        f"{path}: {_shown(old, path)} -> {_shown(new, path)}"
        for path in paths
        if old.get(path, _Absent) != new.get(path, _Absent)
    ]


class _Absent:
    """Stands for a value that is not there."""


def _shown(values: Mapping[str, Any], path: str) -> str:
    return repr(values[path]) if path in values else "(none)"
