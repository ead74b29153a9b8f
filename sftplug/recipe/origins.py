"""Where every value of a recipe came from: a line of a file, the command line, or the default of a component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from sftplug.plugin.components import Component, parts_of
from sftplug.plugin.kinds import NOUNS
from sftplug.recipe.defaults import of_adapter, of_optimizer
from sftplug.recipe.load import LoadedRecipe
from sftplug.recipe.model import Recipe
from sftplug.recipe.problems import origin_of
from sftplug.recipe.section import Section
from sftplug.recipe.yaml import Path_, dotted, leaves


@dataclass(frozen=True, slots=True)
class Origin:
    """One value of a resolved recipe."""

    path: str
    """Where it stands, dotted: ``data.train[0].format.column``."""
    value: Any
    """The value as JSON holds it."""
    origin: str
    """``recipe.yaml:12``, ``base.yaml:3 (extended)``, ``sftplug.toml:7 (house file)``, ``command line``, ``default of
    adapter lora`` or ``default``."""
    plugin: str | None
    """The plugin that offers the component whose option this is; None for the core's own sections."""


def origins(loaded: LoadedRecipe) -> list[Origin]:
    """Return every value of the resolved recipe, in the order of its sections."""
    return [origin for _, origin in _Explainer(loaded).walk((), "", loaded.recipe)]


def origins_at(loaded: LoadedRecipe, key: str) -> list[Origin]:
    """Return the values at `key` and below it, in the order of the recipe; none where there is no such value.

    `key` is spelled as any command or record has it. Of ``masking: [{tool_calls: 0.5}]`` the weight is

        masking[0].weight       in `origins`, where a union of one has no index of its own
        masking[0][0].weight    in the record of a run, and in what a component says of itself

    and of ``masking: assistant`` the type is also ``masking``, as the recipe has it, and ``masking.type``, as an
    override may say it.
    """
    values = list(_Explainer(loaded).walk((), "", loaded.recipe))
    found = [origin for path, origin in values if any(is_in(name, key) for name in _spellings(loaded, path, origin))]
    return found or [part for path, origin in values for part in _parts_at(loaded, path, origin, key)]


def is_in(path: str, key: str) -> bool:
    """Whether the value at a dotted path is the one at `key`, or a part of it."""
    return path == key or path.startswith((f"{key}.", f"{key}["))


def _spellings(loaded: LoadedRecipe, path: Path_, origin: Origin) -> set[str]:
    """Return how the value at `path` of the resolved recipe may be called.

    ``("masking", 0, 0, "type")`` stands at ``("masking",)`` in the file, and what it is in, ``("masking", 0, 0)``,
    does too: so it is ``masking`` and ``masking.type``. A source's options stand beside those of its section, in
    ``data.train[0].path`` as in ``data.train.path`` where one source stands for a list.
    """
    around = range(len(path) + 1)
    beside = tuple(part for part in path if part != "source")
    paths = [path, beside, *((*loaded.tree.place(path[:length]), *path[length:]) for length in around)]
    return {origin.path, *map(dotted, paths)}


def _parts_at(loaded: LoadedRecipe, path: Path_, origin: Origin, key: str) -> Iterator[Origin]:
    """Yield the parts at `key` of a value that `origins` shows as a whole: a list of names, a mapping of numbers."""
    is_whole = isinstance(origin.value, list | dict) and origin.value
    if not is_whole or not any(is_in(key, name) for name in _spellings(loaded, path, origin)):
        return
    for below, value in leaves(origin.value):
        at, shown = (*path, *below), origin.path + _behind(below)
        part = Origin(shown, value, origin_at(loaded, at), origin.plugin)
        if any(is_in(name, key) for name in _spellings(loaded, at, part)):
            yield part


def _behind(path: Path_) -> str:
    """Return what is written behind the path of a list or mapping for a value in it: ``[0]``, ``.name``."""
    return dotted(path) if isinstance(path[0], int) else f".{dotted(path)}"


def origin_by_path(loaded: LoadedRecipe) -> dict[str, str]:
    """Return dotted path -> where the value comes from, of every value of the resolved recipe."""
    return {value.path: value.origin for value in origins(loaded)}


def origin_at(loaded: LoadedRecipe, path: Path_) -> str:
    """Return where the value at a path of the resolved recipe comes from: a file, the command line, or a default.

    The one answer to this question, for what is shown and for the record of a run.
    """
    if not _is_said(loaded.tree.data, path):
        return _default_of(loaded.recipe, path)
    origin = origin_of(loaded.tree, path)
    if loaded.house.is_origin(origin):
        return f"{origin} (house file)"
    file, _, line = origin.rpartition(":")
    return f"{origin} (extended)" if line.isdigit() and Path(file).stem != loaded.name else origin


def _is_said(data: Any, path: Path_) -> bool:
    """Whether the recipe says the value at `path`, or, in other words, what became that value."""
    for part in path:
        keys = data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, list) else None
        if keys is None:
            return True
        if part not in keys:
            return False
        data = data[part]
    return True


def _default_of(recipe: Recipe, path: Path_) -> str:
    value: Any = recipe
    for index, part in enumerate(path):
        if isinstance(value, Component) and not any(path[index : index + len(at)] == at for at, _ in parts_of(value)):
            noun = next(noun for kind, noun in NOUNS.items() if isinstance(value, kind))
            return "default" if path[index:] == ("type",) else f"default of {noun} {value.type}"
        value = value[part] if isinstance(part, int) else getattr(value, part, None)
    return "default"


@dataclass(frozen=True, slots=True)
class _Explainer:
    """Walks the resolved recipe, and yields each value with its path; `plugin` answers for what it walks."""

    loaded: LoadedRecipe
    plugin: str | None = None

    def walk(self, path: Path_, shown: str, value: Any) -> Iterator[tuple[Path_, Origin]]:
        """Yield what is inside of `value`, which stands at `path`, and is shown to stand at `shown`."""
        if isinstance(value, Component | Section):
            yield from self._model(path, shown, value)
        elif path == ("train",):
            for name, option in value.items():
                yield from self._of_whom(name).walk((*path, name), f"{shown}.{name}", option)
        elif isinstance(value, tuple) and any(isinstance(item, Section | Component | tuple) for item in value):
            yield from self._items(path, shown, value)
        else:
            plain = to_jsonable_python(value, fallback=str)
            yield path, Origin(shown, plain, origin_at(self.loaded, path), self.plugin)

    def _of_whom(self, option: str) -> _Explainer:
        """Return the walker for an option of the trainer: whose component it suits, that plugin answers for it."""
        recipe, origin = self.loaded.recipe, self.loaded.tree.origins.get(("train", option))
        if origin == of_adapter(recipe.adapter.type):
            return self._inside(recipe.adapter)
        if recipe.optimizer is not None and origin == of_optimizer(recipe.optimizer.type):
            return self._inside(recipe.optimizer)
        return self

    def _inside(self, component: Component) -> _Explainer:
        plugin = self.loaded.registry.plugin_of(component)
        return _Explainer(self.loaded, str(self.loaded.registry.plugins.loaded[plugin]) if plugin else None)

    def _items(self, path: Path_, shown: str, items: tuple[Any, ...]) -> Iterator[tuple[Path_, Origin]]:
        for index, item in enumerate(items):
            below, name = (*path, index), f"{shown}[{index}]"
            if isinstance(item, tuple) and len(item) == 1:
                yield from self.walk((*below, 0), name, item[0])  # a union of one is shown without a second index
            else:
                yield from self.walk(below, name, item)

    def _model(self, path: Path_, shown: str, model: Component | Section) -> Iterator[tuple[Path_, Origin]]:
        walker = self._inside(model) if isinstance(model, Component) else self
        for name, field in type(model).model_fields.items():
            key = field.alias or name
            yield from walker.walk((*path, key), f"{shown}.{key}" if shown else key, getattr(model, name))
