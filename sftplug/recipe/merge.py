"""Lay recipes over each other: at the bottom what a recipe extends, then its own values, the command line on top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftplug.errors import Problem, RecipeError
from sftplug.plugin.components import DatasetSource
from sftplug.recipe.model import SOURCE_OF, Recipe, class_at
from sftplug.recipe.short_forms import Offers, spell_out_field
from sftplug.recipe.yaml import MOST_LEVELS, Path_, Tree, Way, dotted, parse_yaml

COMMAND_LINE = "command line"


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
    # ``a.b.c=1`` is {a: {b: {c: 1}}}, every mapping a `Way`: what else stands on the way to the value stays.
    nested: Any = parsed.data
    for key in reversed(path):
        nested = Way({key: nested})
    return Tree(nested, {(*path, *below): origin for below in parsed.origins or [()]})


def merge(layers: Iterable[Tree], offers: Offers) -> Tree:
    """Return one tree of all `layers`, the lowest first; their short forms are spelled out, and they are not changed.

    Mappings merge, everything else is replaced. A bare name says all of a component, so it replaces the old one; so
    does a component of another type, for the old options would mean nothing to it, and another source of rows.
    """
    merged = Tree({})
    for layer in layers:
        layering = _Layering(merged, layer, offers)
        merged.data = layering.lay(merged.data, layer.data, ())
    return merged


@dataclass(frozen=True, slots=True)
class _Layering:
    """One layer on its way onto the others."""

    merged: Tree
    """The result, whose notes are kept up to date in place."""
    layer: Tree
    offers: Offers

    def lay(self, below: Any, over: Any, path: Path_) -> Any:
        """Return `over` laid over `below`, both values of `path`."""
        if isinstance(over, Way):
            return self._go(below, over, path)
        # `callbacks: {samples: {every: epoch}}` over `callbacks: {samples: …}`: neither is a list, and they merge.
        if _stands_for_one(self.merged, below, path) and _stands_for_one(self.layer, over, path):
            self._note(path)
            return [self.lay(below[0], over[0], (*path, 0))]
        # Over `adapter: {lora: {r: 8}}`, `adapter: lora` says all of an adapter, and `r` is its default again; with
        # `adapter: {lora: {alpha: 4}}`, `r` stays 8.
        is_added = isinstance(below, dict) and isinstance(over, dict) and _are_alike(below, over, path)
        if is_added and not _is_bare(self.layer, over, path):
            self._note(path)
            return self._merge(self._without_alternatives(below, over, path), over, path)
        return self._replace(below, over, path)

    def _merge(self, kept: dict[str, Any], over: dict[Any, Any], path: Path_) -> dict[str, Any]:
        return {**kept, **{key: self.lay(kept.get(key), value, (*path, key)) for key, value in over.items()}}

    def _replace(self, below: Any, over: Any, path: Path_) -> Any:
        self._forget(below, path)
        for where in _paths(over, path):
            self._note(where)
        return over

    def _without_alternatives(self, below: dict[str, Any], over: dict[Any, Any], path: Path_) -> dict[str, Any]:
        """Drop what `over` says something else instead of: ``build`` where it has a ``name_or_path``."""
        section = class_at(path)
        if section is Recipe:
            return self._without_stand_ins(below, over)
        if section is DatasetSource and not isinstance(over, Way):
            kept = "type" if len(over.keys() & SOURCE_OF.keys()) < 2 else None  # two say no more than none
            dropped = [key for key in below if key != kept] if self._says_which_rows(over, below) else []
        else:
            # An override touches one value: what else was said of the old rows stays.
            names = SOURCE_OF if section is DatasetSource else getattr(section, "alternatives", ())
            dropped = [key for key in names if key in below and key not in over] if over.keys() & {*names} else []
        for key in dropped:
            self._forget(below[key], (*path, key))
        return {key: value for key, value in below.items() if key not in dropped}

    def _without_stand_ins(self, below: dict[str, Any], over: dict[Any, Any]) -> dict[str, Any]:
        """Drop ``train.optim`` where `over` names an ``optimizer``, and that where it says ``train.optim``."""
        said = over.get("train") or {}
        for section, options in Recipe.stands_in_for.items():
            train, renamed = below.get("train"), isinstance(said, dict) and said.keys() & {*options}
            if over.get(section) is not None and isinstance(train, dict):
                for name in [name for name in options if name in train]:
                    self._forget(train[name], ("train", name))
                below = {**below, "train": {name: value for name, value in train.items() if name not in options}}
            elif renamed and section in below and section not in over:
                self._forget(below[section], (section,))
                below = {name: value for name, value in below.items() if name != section}
        return below

    def _says_which_rows(self, over: dict[str, Any], below: dict[str, Any]) -> bool:
        """Whether a source says anew what it cannot do without: of other rows, the old ``split`` means nothing."""
        component = self.offers.get(DatasetSource, {}).get(str(over.get("type", below.get("type"))))
        fields = component.model_fields if component is not None else {}
        needed = [field.alias or name for name, field in fields.items() if field.is_required()]
        return any(option in over for option in needed or ["type"])

    # --- overrides ---

    def _go(self, below: Any, over: Way, path: Path_) -> Any:
        """Return `below` with the one value set that `over` leads to."""
        if below is None:
            below = self._there(path)
        if not isinstance(below, dict | list):
            self._forget(below, path)
            below = _as_far_as(next(iter(over)))
        if isinstance(below, list):
            return self._go_into_list(below, over, path)
        if not _are_alike(below, over, path):
            return self._replace(below, dict(over), path)
        if path not in self.merged.origins:
            self._note(path, COMMAND_LINE)
        return self._merge(self._without_alternatives(below, over, path), over, path)

    def _there(self, path: Path_) -> Any:
        """Return what an override goes through where nothing is said: the component that is there by default."""
        section = class_at(path[:-1]) if path else None
        field = section.model_fields.get(str(path[-1])) if section is not None else None
        if field is None or not isinstance(field.default, str):
            return None
        default = spell_out_field(field.default, field, self.offers)
        self.merged.origins.update(dict.fromkeys(_paths(default, path), "default"))
        return default

    def _go_into_list(self, below: list[Any], over: Way, path: Path_) -> list[Any]:
        ((index, value),) = over.items()
        # `data.train.first=5` names no index: it means the only source. Of two, nobody knows which is meant.
        is_said = self.layer.places.get((*path, index)) != self.layer.places.get(path, path)
        if not isinstance(index, int) or index >= len(below) or (len(below) > 1 and not is_said):
            known = ", ".join(f"`{dotted((*path, number))}`" for number in range(len(below)))
            text = f"`{dotted(path)}` is a list: say which is meant. There are {known or 'none'}."
            wanted = self.layer.place(_end(over, path))
            raise RecipeError(COMMAND_LINE, [Problem(dotted(wanted), text, COMMAND_LINE)])
        if path not in self.merged.origins:
            self._note(path, COMMAND_LINE)
        return [*below[:index], self.lay(below[index], value, (*path, index)), *below[index + 1 :]]

    # --- notes ---

    def _note(self, path: Path_, otherwise: str | None = None) -> None:
        """Take over from the layer where the value at `path` comes from, and its place."""
        origin = self.layer.origins.get(path, otherwise)
        if origin is not None:
            self.merged.origins[path] = origin
        self.merged.places.pop(path, None)
        if path in self.layer.places:
            self.merged.places[path] = self.layer.places[path]

    def _forget(self, value: Any, path: Path_) -> None:
        for where in _paths(value, path):
            self.merged.origins.pop(where, None)
            self.merged.places.pop(where, None)


def _paths(value: Any, path: Path_) -> Iterator[Path_]:
    """Yield `path`, and where each value inside of `value` stands: the keys of the origins need not be searched."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


def _end(over: Any, path: Path_) -> Path_:
    """Return the path of the value that an override sets."""
    while isinstance(over, Way):
        ((key, over),) = list(over.items())[-1:]
        path = (*path, key)
    return path


def _as_far_as(key: str | int) -> Any:
    """Return what an override goes through where nothing is: a list has one item there, the first."""
    return ([None] if key == 0 else []) if isinstance(key, int) else {}


def _are_alike(below: dict[str, Any], over: dict[Any, Any], path: Path_) -> bool:
    """Whether both are the same component, or none; the options of a source may be said before its name."""
    name = below.get("type", over.get("type") if class_at(path) is DatasetSource else None)
    return bool(over.get("type", name) == name)


def _stands_for_one(tree: Tree, value: Any, path: Path_) -> bool:
    """Whether `value` is a list whose only item is written without it."""
    return isinstance(value, list) and len(value) == 1 and _shares_place(tree, path, 0)


def _is_bare(tree: Tree, value: dict[str, Any], path: Path_) -> bool:
    """Whether `value` is a mapping that is written as one word."""
    ((key, word), *others) = value.items() or [("", {})]
    return not others and not isinstance(word, dict | list) and _shares_place(tree, path, key)


def _shares_place(tree: Tree, path: Path_, key: str | int) -> bool:
    return tree.places.get((*path, key)) == tree.places.get(path, path)
