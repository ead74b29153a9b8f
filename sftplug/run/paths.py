"""The files that a recipe names, in its record and in another start: one and the same, wherever they lie now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.data.store import is_input_path
from sftplug.errors import RunError
from sftplug.plugin.calls import fingerprint
from sftplug.recipe.find import recipes_folder
from sftplug.recipe.places import PLACES, as_it_was, relative_to_record
from sftplug.recipe.yaml import Path_

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.recipe.model import Recipe
    from sftplug.run.directory import RunDirectory


def _paths(recipe: Recipe) -> Iterator[tuple[Path_, str]]:
    """Yield place in the recipe and path of every file and folder that it names."""
    if (name := recipe.model.name_or_path) is not None and Path(name).is_absolute():
        yield ("model", "name_or_path"), name
    if recipe.model.adapter is not None:
        yield ("model", "adapter"), recipe.model.adapter
    for place, component in recipe.located_components():
        for name, field in type(component).model_fields.items():
            value = getattr(component, name)
            if isinstance(value, str) and "://" not in value and is_input_path(field.annotation, field.metadata):
                yield (*place, field.alias or name), value


def make_relative(data: dict[str, Any], loaded: LoadedRecipe, directory: RunDirectory) -> None:
    """Write paths in `data`, which is to be recorded, relative to the record where the project holds both."""
    project, before, places = _project(loaded), _recorded(directory), dict[str, str]()
    for place, path in _paths(loaded.recipe):
        was = _at(before, place)
        if isinstance(was, str) and not Path(was).is_absolute() and _resolved(was, directory.path) == path:
            short = str(was)  # a run that is resumed from its own record
        else:
            short = relative_to_record(path, directory.path, project)
        if short != path:
            _set(data, place, short)
            places[short] = path
    directory.write(PLACES, places)


def _project(loaded: LoadedRecipe) -> Path:
    """Return the folder of the recipe; of one that is shipped, or a dict, the working folder."""
    reference = loaded.asked.reference
    file = Path(reference) if isinstance(reference, str) else Path()
    shipped = recipes_folder() in file.absolute().parents
    return file.parent if file.is_file() and not shipped else Path()


def _recorded(directory: RunDirectory) -> Mapping[str, Any]:
    with suppress(RunError):
        return directory.recipe()
    return {}


def recorded_model(directory: RunDirectory) -> str | None:
    """Return the name or folder of the model that the run in `directory` was begun with."""
    name: str | None = directory.recipe()["model"]["name_or_path"]
    return _resolved(name, directory.path) if name is not None and name.startswith(".") else name


def moved(before: dict[str, Any], loaded: LoadedRecipe, directory: RunDirectory) -> dict[str, Any]:
    """Return what was recorded in `directory`, with each path as `loaded` has it where it is the same file.

    It is where it lies in the same way from the run's folder, and of rows where their fingerprint is the same.
    """
    same_rows = _same_rows(loaded.recipe, directory)
    for place, path in _paths(loaded.recipe):
        was = _at(before, place)
        if not isinstance(was, str) or was == path:
            continue
        if path in _candidates(was, before, directory.path) or place[:3] in same_rows:
            _set(before, place, path)
    return before


def _candidates(was: str, before: Mapping[str, Any], run: Path) -> Iterator[str]:
    """Yield where a recorded path leads today: an absolute one as it lay from the folder of the run.

    Of an `output` that was relative, it is not known to which folder: to one of those around the path.
    """
    output = str(before.get("output", ""))
    if not Path(was).is_absolute():
        yield _resolved(was, run)
        return
    # A run of "out" recorded /home/a/data/x.jsonl. Seen from /home/a/out that is ../data/x.jsonl: so it lies there when
    # the project has moved to /home/b.
    for around in [Path(output)] if Path(output).is_absolute() else [above / output for above in Path(was).parents]:
        yield _resolved(os.path.relpath(was, around), run)


def _resolved(text: str, run: Path) -> str:
    """Return the absolute path that `text` stands for in the record of the folder `run`."""
    path = (run / text).resolve()
    return str(path if path.exists() else as_it_was(run, text) or path)


def _same_rows(recipe: Recipe, directory: RunDirectory) -> set[Path_]:
    """Return the places of the sources that hold, to the byte, the rows that they held when the run began."""
    if not (directory.path / "data.json").is_file():
        return set()
    known = {source["at"]: source["fingerprint"] for source in directory.data()["sources"]}
    found: set[Path_] = set()
    for split in ("train", "eval"):
        for index, source in enumerate(getattr(recipe.data, split)):
            was = known.get(f"data.{split}[{index}]")
            if was is not None and was == fingerprint(source.source):
                found.add(("data", split, index))
    return found


def _at(data: Any, place: Path_) -> Any:
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _set(data: Any, place: Path_, value: str) -> None:
    for part in place[:-1]:
        data = data[part]
    data[place[-1]] = value
