"""Options as an earlier version of a component had them, made those of today before anything looks at them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from sftplug.errors import Problem
from sftplug.plugin.calls import upgraded
from sftplug.plugin.components import Component, RecipeSection
from sftplug.plugin.errors import describe
from sftplug.plugin.manager import Plugin
from sftplug.plugin.registry import Classes, Registry
from sftplug.recipe.model import Recipe, class_at, models_in
from sftplug.recipe.problems import path_of, problem_at
from sftplug.recipe.yaml import Path_, Tree
from sftplug.util.redact import without_secrets


def upgrade_options(tree: Tree, registry: Registry, versions: Mapping[str, str] | None = None) -> list[str]:
    """Let the class of each component in `tree`, where all is spelled out, upgrade the options; return what changed.

    `versions` are those of the plugins when the record of a run was written; a recipe knows none, and each is "".
    Raises PluginError for an `upgrade` that fails.
    """
    return list(_Upgrade(tree, registry, versions or {}).walk(tree.data, (), Recipe))


@dataclass(frozen=True, slots=True)
class _Upgrade:
    tree: Tree
    registry: Registry
    versions: Mapping[str, str]

    def walk(self, value: Any, path: Path_, model: type[BaseModel]) -> Iterator[str]:
        """Go through `value`, which is a section or a component of a kind, or holds such; yield a sentence a change."""
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.walk(item, (*path, index), model)
        elif isinstance(value, dict) and issubclass(model, Component):
            if isinstance(value.get("type"), str):
                yield from self._component(value, path, model)
                return
            for name, item in value.items():  # components by names of their own
                yield from self.walk(item, (*path, name), model)
        elif isinstance(value, dict):
            yield from self._below(value, path, model)

    def _below(self, value: dict[str, Any], path: Path_, model: type[BaseModel]) -> Iterator[str]:
        """Go through what the fields of a section or component hold."""
        for name, field in model.model_fields.items():
            key = field.alias or name
            inner = next(models_in(field.annotation), None)
            if key in value and inner is not None:
                yield from self.walk(value[key], (*path, key), inner)
        for name in self.registry.offers[RecipeSection] if model is Recipe else ():
            if isinstance(value.get(name), dict):
                yield from self._component(value[name], (*path, name), RecipeSection, name)

    def _component(
        self, value: dict[str, Any], path: Path_, kind: type[Component], name: str | None = None
    ) -> Iterator[str]:
        offers, name = self.registry.offers[kind], name or value["type"]
        component = Classes(offers).ready(name)
        if component is None:
            return  # it is not installed, which is said, or read from a library, whose options are not its author's
        before = {key: item for key, item in value.items() if key != "type"}
        version = self.versions.get(offers[name].plugin.name, "")
        after = upgraded(component, before, version)
        if after != before:
            yield self._said(component, path, before, after)
            self._put(value, path, before, after)
        yield from self._below(value, path, component)

    def _said(self, component: type[Component], path: Path_, before: dict[str, Any], after: dict[str, Any]) -> str:
        old, new = _shown(before, after), _shown(after, before)
        text = f"{describe(component)} has upgraded options of an earlier version: {old} -> {new}"
        return str(problem_at(self.tree, path, text))

    def _put(self, value: dict[str, Any], path: Path_, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Write the options of today in the place of the others; they come from where the component does."""
        changed = {(*path, name) for name in {*before, *after} if before.get(name, _ABSENT) != after.get(name, _ABSENT)}
        for notes in (self.tree.origins, self.tree.places):
            for place in [place for place in notes if place[: len(path) + 1] in changed]:
                notes.pop(place)
        for name in before.keys() - after.keys():
            del value[name]
        value.update(after)


def with_versions(
    problems: Iterable[Problem], tree: Tree, registry: Registry, versions: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield what is wrong with the record of a run; of a component of another version than today's, with both."""
    for problem in problems:
        plugin = _plugin_at(problem.path, tree, registry)
        then = versions.get(plugin.name) if plugin is not None else None
        if plugin is None or then is None or then == plugin.version:
            yield problem
        else:
            was, now = (f"{plugin.distribution} {then}" if then else "a plugin file"), plugin.version or "a plugin file"
            yield replace(problem, text=f"{problem.text} The run is of {was}, and {now} is installed.")


def _plugin_at(place: str, tree: Tree, registry: Registry) -> Plugin | None:
    """Return the plugin of the component in whose options the place of a record is."""
    value, found, path = tree.data, None, path_of(place)
    for length, part in enumerate(path, start=1):
        value, kind = _inside(value, part), class_at(path[:length])
        if length == 1 and part in registry.offers[RecipeSection]:
            found = registry.offers[RecipeSection][str(part)].plugin
        if isinstance(value, Mapping) and kind in registry.offers:
            offer = registry.offers[kind].get(value.get("type", ""))
            found = offer.plugin if offer is not None else found
    return found


def _inside(value: Any, part: str | int) -> Any:
    if isinstance(value, list):
        return value[part] if isinstance(part, int) and part < len(value) else None
    return value.get(part) if isinstance(value, Mapping) else None


_ABSENT = object()


def _shown(options: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Return those of `options` that are not the same in `others`, as a recipe has them."""
    own = without_secrets({name: value for name, value in options.items() if others.get(name, _ABSENT) != value})
    told = [f"{name}: {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in own.items()]
    return f"`{', '.join(told)}`" if told else "nothing"
