"""A model that is named by an adapter of it: the base is what the adapter's own configuration names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftplug.errors import ModelError, Problem
from sftplug.recipe.problems import origin_of, problem_at
from sftplug.recipe.section import resolve_local_model, resolve_path
from sftplug.recipe.yaml import Path_, Tree

ADAPTER = "adapter_config.json"
"""The file that tells an adapter from a whole model."""
OWN = "sftplug_adapter.json"
"""That of an adapter that is no type of PEFT: its type and options, and its base."""


def is_adapter(path: Path) -> bool:
    """Whether the folder `path` holds an adapter rather than a whole model: one of PEFT, or one that saves itself."""
    return (path / ADAPTER).is_file() or (path / OWN).is_file()


def adapter_config(path: Path) -> Mapping[str, Any]:
    """Return what was written of the adapter in the folder `path`. Raises ModelError when it cannot be read."""
    file = path / (OWN if (path / OWN).is_file() else ADAPTER)
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(known, dict):
        raise ModelError(f"{file} is damaged: it holds no object.")
    return known


def spell_out_base(tree: Tree) -> list[Problem]:
    """Write into `tree` the base of an adapter that its model is named by, and return what is wrong with that.

    ``model: ./first``, a folder with an adapter, becomes ``{name_or_path: BASE, adapter: ./first}``; so does
    ``model: {adapter: ./first}``.
    """
    model = tree.data.get("model")
    if not isinstance(model, dict) or model.get("build") is not None:
        return []
    named = model.get("name_or_path")
    if model.get("adapter") is None and _is_folder_of_adapter(named):
        model["adapter"] = named
        tree.origins["model", "adapter"] = origin_of(tree, ("model", "name_or_path"))
        named = None
    folder = model.get("adapter")
    if named is not None or not isinstance(folder, str):
        return []
    return _fill_in(tree, model, Path(resolve_path(folder)))


def _is_folder_of_adapter(named: Any) -> bool:
    # A bare name is one on the Hub, and that a folder of this name is here may be chance.
    path = Path(resolve_local_model(named)) if isinstance(named, str) and named.startswith((".", "/", "~")) else None
    return path is not None and (path / ADAPTER).is_file() and not (path / OWN).is_file()


def _fill_in(tree: Tree, model: dict[str, Any], folder: Path) -> list[Problem]:
    where: Path_ = ("model", "adapter")
    if not is_adapter(folder):
        return [problem_at(tree, where, f"{folder} holds no adapter: there is no {ADAPTER}.")]
    try:
        known = adapter_config(folder)
    except ModelError as error:
        return [problem_at(tree, where, str(error))]
    base = known.get("base_model_name_or_path")
    if not base:
        return [problem_at(tree, where, f"{folder / ADAPTER} names no base. Name it: `model.name_or_path`.")]
    found = {"name_or_path": base, "revision": known.get("revision")}
    for name, value in found.items():
        if value is not None and (name == "name_or_path" or model.get(name) is None):
            model[name] = value
            tree.origins["model", name] = str(folder / ADAPTER)
    return []
