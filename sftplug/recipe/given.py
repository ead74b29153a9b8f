"""A recipe as a Python dict: the tree that a YAML file becomes; objects in it stand for their names and options."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sftplug.errors import Problem, RecipeError
from sftplug.plugin.components import Component, parts_of
from sftplug.recipe.yaml import MOST_LEVELS, MOST_VALUES, LocatedStr, Path_, Tree, dotted
from sftplug.storage.files import write_json

if TYPE_CHECKING:
    from sftplug.plugin.registry import Registry
    from sftplug.recipe.model import Recipe

PYTHON = "python"
"""The origin of a value that a Python program gives, and the name of a recipe that is a dict."""
KEPT = ".launch.json"
"""The file in a run's folder that tells other processes its recipe, while they run; a recipe may hold secrets."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a recipe is loaded from; `LoadedRecipe.again` loads it once more."""

    reference: str | Mapping[str, Any]
    """A path, the name of a shipped recipe, or the recipe itself."""
    overrides: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    """Names of plugins that must not be loaded."""
    modules: tuple[ModuleType, ...] = ()
    """Plugins as modules of the running program."""
    origin: str = "command line"
    """Where the overrides come from."""
    versions: Mapping[str, str] | None = None
    """Of the record of a run: plugin -> its version then. None for a recipe, which knows none."""
    command: str = ""
    """What it is loaded for: policies are asked about that. Empty where that is not known yet; they are asked then."""
    recognized: Sequence[Any] = ()
    """What its rows were found to be when it was loaded before: they are not looked at again."""
    begun: Callable[[str, Recipe, Registry], Sequence[Any]] | None = None
    """Returns what the rows of a run were found to be when it began, by its folder; None where none is resumed."""

    @property
    def name(self) -> str:
        """What the recipe is called in a message."""
        return self.reference if isinstance(self.reference, str) else PYTHON


@dataclass(slots=True)
class _Reader:
    """Copies plain data, and notes where everything comes from."""

    origins: dict[Path_, str] = field(default_factory=dict)
    classes: list[type[Component]] = field(default_factory=list)
    base: Path = field(default_factory=Path.cwd)
    problems: list[Problem] = field(default_factory=list)

    def read(self, value: Any, path: Path_ = ()) -> Any:
        self.origins[path] = PYTHON
        if len(self.origins) > MOST_VALUES or len(path) > MOST_LEVELS:
            limit = f"more than {MOST_VALUES:,} values, or more than {MOST_LEVELS} in each other"
            raise RecipeError(PYTHON, [Problem(dotted(path[:3]), f"holds {limit}.")])
        if isinstance(value, Component):
            self.classes += [type(value), *(type(part) for _, part in parts_of(value))]
            # Only what was set: else each default would count as said by the program.
            return self.read(
                value.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"type": value.type}, path
            )
        if isinstance(value, Mapping):
            return {self._key(key, path): self.read(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.read(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str | Path):
            return LocatedStr(str(value), getattr(value, "base", self.base))
        if value is not None and not isinstance(value, bool | int | float):
            self.problems.append(Problem(dotted(path), _no_data(value), PYTHON))
        return value

    def _key(self, key: object, path: Path_) -> str:
        if not isinstance(key, str):
            self.problems.append(Problem(dotted(path), f"a key must be text, not {key!r}", PYTHON))
        return str(key)


def _no_data(value: object) -> str:
    if isinstance(value, type) and issubclass(value, Component):
        return f"is the class {value.__name__}: give an object of it, as in `{value.__name__}()`."
    return f"must be plain data or a component, not {type(value).__name__}."


def read_mapping(data: Mapping[str, Any]) -> tuple[Tree, list[type[Component]]]:
    """Return the tree of a recipe that is a dict, and the classes of the components in it.

    Relative paths are of the working directory. Raises RecipeError for what is neither plain data nor a component.
    """
    reader = _Reader()
    tree = Tree(reader.read(data), reader.origins)
    if reader.problems:
        raise RecipeError(PYTHON, reader.problems)
    return tree, reader.classes


# --- for other processes ----------------------------------------------------------------------------------------------


def write_tree(tree: Tree, name: str, file: Path, house: Path | None = None) -> None:
    """Write a tree with its origins, and the folders that its relative paths are of, so that `read_tree` reads it.

    `house` is the house file whose defaults are in it already.

    Its owner alone can read the file.
    """
    known = {
        "name": name,
        "house": str(house.absolute()) if house is not None else None,
        "data": tree.data,
        "origins": [[list(path), origin] for path, origin in tree.origins.items()],
        "places": [[list(path), list(place)] for path, place in tree.places.items()],
        "bases": [[list(path), str(text.base)] for path, text in _texts(tree.data, ())],
    }
    write_json(file, known, private=True)


def read_tree(file: Path) -> tuple[Tree, str, str | None]:
    """Return the tree that `write_tree` wrote, the recipe's name, and the house file.

    Raises RecipeError when it cannot be read.
    """
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        bases = {tuple(path): Path(base) for path, base in known["bases"]}
        origins = {tuple(path): origin for path, origin in known["origins"]}
        places = {tuple(path): tuple(place) for path, place in known["places"]}
        return Tree(_located(known["data"], bases, ()), origins, places), str(known["name"]), known["house"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(str(file), [Problem("recipe", f"cannot be read: {error}")]) from error


def _texts(value: Any, path: Path_) -> Iterable[tuple[Path_, LocatedStr]]:
    if isinstance(value, LocatedStr):
        yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _texts(item, (*path, key))


def _located(value: Any, bases: Mapping[Path_, Path], path: Path_) -> Any:
    if isinstance(value, dict):
        return {key: _located(item, bases, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_located(item, bases, (*path, index)) for index, item in enumerate(value)]
    return LocatedStr(value, bases[path]) if path in bases else value
