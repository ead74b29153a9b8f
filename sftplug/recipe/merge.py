"""Lay recipes over each other: at the bottom what a recipe extends, then its own values, the command line on top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftplug.errors import Problem, RecipeError
from sftplug.plugin.components import Component
from sftplug.recipe.choices import expand
from sftplug.recipe.model import Section, class_at
from sftplug.recipe.problems import dotted
from sftplug.recipe.yaml import MOST_LEVELS, Path_, Tree, parse_yaml

COMMAND_LINE = "command line"

Offers = Mapping[type[Component], Mapping[str, type[Component]]]
"""Kind -> name -> class of what is installed."""


class _Way(dict[str | int, Any]):
    """A key on the way to the value that an override sets; an integer is an index into a list."""


def read_override(override: str, origin: str = COMMAND_LINE) -> Tree:
    """Return ``section.key=value`` as a tree of its own; the value is YAML, and comes from `origin`.

    ``data.train.0.path`` and ``data.train[0].path`` reach into a list.
    """
    keys, equals, value = override.partition("=")
    names = re.sub(r"\[(\d+)\]", r".\1", keys).split(".")
    if not equals or not all(names):
        raise RecipeError(COMMAND_LINE, [Problem(override, "must be written section.key=value")])
    if len(names) > MOST_LEVELS:
        raise RecipeError(COMMAND_LINE, [Problem(names[0], f"is set more than {MOST_LEVELS} levels deep.")])
    path = tuple(int(name) if re.fullmatch("[0-9]{1,9}", name) else name for name in names)
    try:
        parsed = parse_yaml(value, name=COMMAND_LINE, base=Path.cwd())
    except RecipeError as error:
        raise RecipeError(COMMAND_LINE, [Problem(keys, problem.text) for problem in error.problems]) from error
    nested: Any = parsed.data
    for key in reversed(path):
        nested = _Way({key: nested})
    return Tree(nested, {(*path, *below): origin for below in parsed.origins or [()]})


def merge(layers: Iterable[Tree], offers: Offers) -> Tree:
    """Return one tree of all `layers`, the lowest first; they are not changed.

    Mappings merge, everything else is replaced. A component of another type replaces the old one whole, for its
    options would mean nothing to the new one; so does a source of another kind.
    """
    merged = Tree({})
    for layer in layers:
        layering = _Layering(merged.origins, dict(layer.origins), offers)
        merged = Tree(layering.lay(merged.data, layer.data, ()), layering.origins)
    return merged


@dataclass(frozen=True, slots=True)
class _Layering:
    """One layer on its way onto the others."""

    origins: dict[Path_, str]
    """Of the result; kept up to date in place."""
    new: dict[Path_, str]
    """Of the layer."""
    offers: Offers

    def lay(self, below: Any, over: Any, path: Path_) -> Any:
        """Return `over` laid over `below`, both values of `path`."""
        if isinstance(over, dict):
            below, over = self._spelled_out(below, over, path), self._renamed(over, path)
        if isinstance(over, _Way) and isinstance(below, list):
            return self._lay_in_list(below, over, path)
        if isinstance(over, _Way) and isinstance(below, dict) and set(over) == {0}:
            self._move((*path, 0), path)
            return self.lay(below, over[0], path)  # a single value may be written without its list
        if isinstance(below, dict) and isinstance(over, dict) and _are_alike(below, over):
            kept = self._without_alternatives(below, over, path)
            self.origins[path] = self.new.get(path) or self.origins.get(path) or COMMAND_LINE
            return {**kept, **{key: self.lay(kept.get(key), value, (*path, key)) for key, value in over.items()}}
        self._forget(below, path)
        self.origins.update({where: self.new[where] for where in _paths(over, path) if where in self.new})
        return over

    def _spelled_out(self, below: Any, over: Any, path: Path_) -> Any:
        """Return a bare name, or the section's default, as the mapping that `over` can be laid over."""
        kind = class_at(path)
        if isinstance(over, _Way) and below is None:
            below = _default_at(path)
            if below is None:
                return {}
        if isinstance(below, str) and kind is not None:
            name = "type" if issubclass(kind, Component) else getattr(kind, "shorthand", None)
            return {name: below} if name else below
        return expand(below, self._offers_of(kind)) if kind is not None else below

    def _renamed(self, over: dict[Any, Any], path: Path_) -> Any:
        """Return ``{lora: {r: 8}}`` as ``{type: lora, r: 8}``, and let the origins follow."""
        kind = class_at(path)
        expanded = over if kind is None or isinstance(over, _Way) else expand(over, self._offers_of(kind))
        if expanded is not over:
            (name, options), *_ = over.items()
            option = () if isinstance(options, Mapping) else (next(key for key in expanded if key != "type"),)
            self._move((*path, name), (*path, *option))
        return expanded

    def _offers_of(self, kind: type) -> Mapping[str, type[Component]]:
        return self.offers.get(kind, {})

    def _lay_in_list(self, below: list[Any], over: _Way, path: Path_) -> list[Any]:
        items = list(below)
        for index, value in over.items():
            if not isinstance(index, int) or index >= len(items):
                known = ", ".join(f"`{dotted((*path, number))}`" for number in range(len(items)))
                text = f"`{dotted(path)}` is a list: say which is meant. There are {known or 'none'}."
                raise RecipeError(COMMAND_LINE, [Problem(dotted((*path, index)), text, COMMAND_LINE)])
            items[index] = self.lay(items[index], value, (*path, index))
        return items

    def _without_alternatives(self, below: dict[str, Any], over: dict[Any, Any], path: Path_) -> dict[str, Any]:
        """Drop what `over` names an alternative to: ``path`` replaces ``hub`` and the options that go with it."""
        section = class_at(path)
        if section is None or not issubclass(section, Section):
            return below
        named = [name for name in section.alternatives if name in over]
        others = [name for name in section.alternatives if name in below and name not in over]
        # An override touches one value; a file that names another dataset does not mean the old one's `split`.
        if not named or (isinstance(over, _Way) and not others):
            return below
        kept = {key: value for key, value in below.items() if key in section.model_fields and key not in others}
        for key in below.keys() - kept.keys():
            self._forget(below[key], (*path, key))
        return kept

    def _move(self, start: Path_, to: Path_) -> None:
        """Let the origins of what the layer has at `start` follow it to `to`."""
        for where in [where for where in self.new if where[: len(start)] == start]:
            self.new[(*to, *where[len(start) :])] = self.new.pop(where)

    def _forget(self, value: Any, path: Path_) -> None:
        for where in _paths(value, path):
            self.origins.pop(where, None)


def _paths(value: Any, path: Path_) -> Iterator[Path_]:
    """Yield `path`, and where each value inside of `value` stands: the keys of the origins need not be searched."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


def _are_alike(below: dict[str, Any], over: dict[Any, Any]) -> bool:
    return bool(over.get("type", below.get("type")) == below.get("type"))


def _default_at(path: Path_) -> str | None:
    """Return the component that the recipe has at `path` by default, when it has one."""
    section = class_at(path[:-1]) if path else None
    field = section.model_fields.get(str(path[-1])) if section is not None else None
    return field.default if field is not None and isinstance(field.default, str) else None
