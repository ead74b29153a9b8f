"""Where every value of a recipe came from: a line of a file, the command line, or the default of a component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from sftplug.plugin.components import Component, DatasetSource
from sftplug.plugin.errors import NOUNS
from sftplug.recipe.defaults import of_adapter
from sftplug.recipe.load import LoadedRecipe
from sftplug.recipe.model import SOURCE_OF, Section, SourceSection
from sftplug.recipe.problems import origin_of
from sftplug.recipe.yaml import Path_


@dataclass(frozen=True, slots=True)
class Origin:
    """One value of a resolved recipe."""

    path: str
    """Where it stands, dotted: ``data.train[0].format.column``."""
    value: Any
    """The value as JSON holds it."""
    origin: str
    """``recipe.yaml:12``, ``base.yaml:3 (extended)``, ``command line``, ``default of adapter lora`` or ``default``."""
    plugin: str | None
    """The plugin that offers the component whose option this is; None for the core's own sections."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What the recipe says at a place, and the path under which its origin is known."""

    value: Any
    at: Path_


def origins(loaded: LoadedRecipe) -> list[Origin]:
    """Return every value of the resolved recipe, in the order of its sections."""
    return list(_Explainer(loaded).walk("", loaded.recipe, _Written(loaded.tree.data, ()), "default"))


def origin_by_path(loaded: LoadedRecipe) -> dict[str, str]:
    """Return dotted path -> where the value comes from, of every value of the resolved recipe."""
    return {value.path: value.origin for value in origins(loaded)}


@dataclass(frozen=True, slots=True)
class _Explainer:
    """Walks what was resolved beside what was written."""

    loaded: LoadedRecipe
    plugin: str | None = None

    def walk(self, path: str, value: Any, written: _Written | None, default: str) -> Iterator[Origin]:
        if isinstance(value, Component):
            yield from self._component(path, value, written, default)
        elif isinstance(value, Section):
            yield from self._section(path, value, written)
        elif path == "train":
            for name, option in value.items():
                yield from self._of_whom(name).walk(f"train.{name}", option, _key(written, name), "default")
        elif isinstance(value, tuple) and any(isinstance(item, Section | Component | tuple) for item in value):
            yield from self._items(path, value, written, default)
        else:
            origin = default if written is None else self._origin(written.at)
            yield Origin(path, to_jsonable_python(value, fallback=str), origin, self.plugin)

    def _of_whom(self, option: str) -> _Explainer:
        """Return the walker for an option of the trainer: the adapter's plugin answers for what suits the adapter."""
        adapter = self.loaded.recipe.adapter
        if self.loaded.tree.origins.get(("train", option)) != of_adapter(adapter.type):
            return self
        return self._inside(adapter)

    def _inside(self, component: Component) -> _Explainer:
        plugin = self.loaded.registry.plugin_of(component)
        return _Explainer(self.loaded, str(self.loaded.registry.plugins.loaded[plugin]) if plugin else None)

    def _items(self, path: str, items: tuple[Any, ...], written: _Written | None, default: str) -> Iterator[Origin]:
        for index, item in enumerate(items):
            below = f"{path}[{index}]"
            if not isinstance(item, tuple):
                yield from self.walk(below, item, _item(written, index), default)
                continue
            for member, (part, said) in enumerate(zip(item, _union(written, index, len(item)), strict=True)):
                yield from self.walk(f"{below}[{member}]" if len(item) > 1 else below, part, said, default)

    def _section(self, path: str, section: Section, written: _Written | None) -> Iterator[Origin]:
        said = _spread_section(section, written)
        for name in type(section).model_fields:
            below = f"{path}.{name}" if path else name
            yield from self.walk(below, getattr(section, name), said.get(name), "default")

    def _component(self, path: str, component: Component, written: _Written | None, default: str) -> Iterator[Origin]:
        inside, said = self._inside(component), _spread_component(component, written)
        noun = next(noun for kind, noun in NOUNS.items() if isinstance(component, kind))
        for name in type(component).model_fields:
            otherwise = default if name == "type" else f"default of {noun} {component.type}"
            yield from inside.walk(f"{path}.{name}", getattr(component, name), said.get(name), otherwise)

    def _origin(self, at: Path_) -> str:
        origin = origin_of(self.loaded.tree, at)
        file, _, line = origin.rpartition(":")
        return f"{origin} (extended)" if line.isdigit() and Path(file).stem != self.loaded.name else origin


# --- the short forms --------------------------------------------------------------------------------------------------


def _key(written: _Written | None, name: str) -> _Written | None:
    if written is None or not isinstance(written.value, Mapping) or name not in written.value:
        return None
    return _Written(written.value[name], (*written.at, name))


def _item(written: _Written | None, index: int) -> _Written | None:
    """Return what is written of an item; a single value stands for a list of one."""
    if written is None or not isinstance(written.value, list):
        return written
    return _Written(written.value[index], (*written.at, index))


def _union(written: _Written | None, index: int, count: int) -> list[_Written | None]:
    """Return what is written of each member of a union: ``a + b``, a list, or one alone."""
    said = _item(written, index)
    if said is not None and isinstance(said.value, list):
        return [_item(said, member) for member in range(count)]
    if said is not None and isinstance(said.value, str):
        return [_Written(name.strip(), said.at) for name in said.value.split("+")]
    return [said] * count


def _keys(written: _Written | None) -> dict[str, _Written | None]:
    names = written.value if written is not None and isinstance(written.value, Mapping) else ()
    return {name: _key(written, name) for name in names}


def _spread_section(section: Section, written: _Written | None) -> dict[str, _Written | None]:
    if written is not None and isinstance(written.value, str) and section.shorthand:
        return {section.shorthand: written}
    said = _keys(written)
    source = said.get("source")
    if (
        isinstance(section, SourceSection)
        and written is not None
        and not (source and isinstance(source.value, Mapping))
    ):
        # The options of the source stand beside those of the section: it is all of them.
        said["source"] = written
    return said


def _spread_component(component: Component, written: _Written | None) -> dict[str, _Written | None]:
    if written is None or isinstance(written.value, str):
        return {"type": written}
    said = _keys(written)
    if "type" in said:
        return said
    if "source" in said or (isinstance(component, DatasetSource) and any(key in said for key in SOURCE_OF)):
        named = next((said[key] for key in ("source", *SOURCE_OF) if key in said), None)
        return {**said, "type": named}
    options = said.get(component.type)
    if options is None:
        return said
    if isinstance(options.value, Mapping):
        return {**_keys(options), "type": options}
    return {"type": options, str(component.shorthand): options}
