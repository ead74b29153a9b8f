"""Sections of the recipe that plugins own: whose each is, and whether that plugin is in use.

A section puts no plugin in use by itself: a misspelt key must not run a stranger's code. So which plugins are in use is
known before anything is validated, from what is listed and which components are named.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from sftplug.errors import Problem
from sftplug.plugin.components import Component, RecipeSection, give_sections
from sftplug.plugin.errors import place_of
from sftplug.plugin.manager import IN_PROGRAM, Plugin
from sftplug.plugin.registry import Classes, Offer, Registry
from sftplug.recipe.choices import is_usable, refused
from sftplug.recipe.house import House
from sftplug.recipe.model import Recipe, models_in
from sftplug.recipe.named_plugins import Named
from sftplug.recipe.problems import origin_of, problem_at
from sftplug.recipe.yaml import Tree


def in_use(tree: Tree, registry: Registry, named: Iterable[Named]) -> set[str]:
    """Return the plugins that a recipe uses: those that are `named`, and those whose components it names.

    What is a module of the running program is in use, too.
    """
    own = {plugin.name for plugin in registry.plugins.loaded.values() if plugin.distribution == IN_PROGRAM}
    return own | {item.name for item in named} | {plugin.name for plugin in _named(tree.data, Recipe, registry)}


def _named(value: Any, model: type[BaseModel], registry: Registry) -> Iterator[Plugin]:
    """Yield the plugin of each component in `value`, which is a section or a component of a kind, or holds such."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item, model, registry)
    elif isinstance(value, dict) and issubclass(model, Component):
        yield from _component(value, model, registry)
    elif isinstance(value, dict):
        yield from _below(value, model, registry)
        owned = registry.offers[RecipeSection] if model is Recipe else {}
        for name in owned.keys() & value.keys():
            if isinstance(value[name], dict):
                yield from _below(value[name], owned[name].component, registry)


def _component(value: dict[str, Any], kind: type[Component], registry: Registry) -> Iterator[Plugin]:
    offers = registry.offers.get(kind, {})
    offer = offers.get(str(value.get("type")))
    if offer is not None:
        yield offer.plugin
        if (component := Classes(offers).ready(offer.name)) is not None:
            yield from _below(value, component, registry)


def _below(value: dict[str, Any], model: type[BaseModel], registry: Registry) -> Iterator[Plugin]:
    for name, field in model.model_fields.items():
        inner = next(models_in(field.annotation), None)
        if inner is not None and (key := field.alias or name) in value:
            yield from _named(value[key], inner, registry)


# --- what a recipe may have -------------------------------------------------------------------------------------------


def own_sections(
    tree: Tree, registry: Registry, used: Container[str], *, of_record: bool = False
) -> tuple[dict[str, Any], list[Problem]]:
    """Return name -> annotation and default of each section that plugins give a recipe; and what is wrong with them.

    A run whose record is read has used the plugins of the sections in it.
    """
    fields: dict[str, Any] = {}
    problems = []
    for name, offer in sorted(registry.offers[RecipeSection].items()):
        is_used = offer.plugin.name in used
        if name in tree.data:
            fields[name] = (offer.component if is_usable(offer, registry) else refused(registry.unusable[-1]), ...)
            problems += [] if is_used or of_record else [problem_at(tree, (name,), _not_in_use(offer))]
        elif is_used:
            made, text = _by_default(offer)
            fields |= {name: (offer.component, made)} if made is not None else {}
            problems += [problem_at(tree, (name,), text)] if text else []
    for (kind, name), clash in registry.clashes.items():
        if kind is RecipeSection and name in tree.data:
            fields[name] = (refused(str(clash)), ...)
    return fields, problems


def _not_in_use(offer: Offer) -> str:
    name = offer.plugin.name
    return (
        f"is a section of the plugin {offer.plugin}, which this recipe does not use. Add `{name}` to `plugins`, as in "
        f"`plugins: [{name}]`, or take the section out."
    )


def _by_default(offer: Offer) -> tuple[Component | None, str]:
    """Return a section of which nothing is written; else why there is none."""
    try:
        return offer.component.model_validate({}), ""
    except ValidationError as error:
        lacking = [f"`{item['loc'][0]}`" for item in error.errors() if item["type"] == "missing"]
        if len(lacking) == error.error_count():
            text = f"is required, for the plugin {offer.plugin} is in use: {', '.join(lacking)} has no default."
            return None, text
        wrong = next(item for item in error.errors() if item["type"] != "missing")
        where = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']} ({place_of(offer.component)})"
        return None, f"a default that the plugin {offer.plugin} gives it is wrong: {where}. Write it until it is fixed."


def leave_out_gone(tree: Tree, registry: Registry, plugins: Iterable[str]) -> list[str]:
    """Take out of a record the sections that nobody offers any more, and return a sentence for each.

    `plugins` are those that the run was made with.
    """
    gone = [name for name in tree.data if name not in _known(registry)]
    lacking = sorted({*plugins} - registry.plugins.loaded.keys())
    of = f" It is of one that is not there: {', '.join(lacking)}." if lacking else ""
    for name in gone:
        del tree.data[name]
    return [f"the run's section `{name}` is left out: no plugin offers it.{of}" for name in gone]


def set_defaults_aside(layers: Iterable[Tree], house: House, registry: Registry) -> list[str]:
    """Take out of what a house file gives recipes the sections that nobody offers once plugins are left out.

    A recipe could not take them out itself. Return a sentence for each; where no plugin is left out there is none, for
    then the key is misspelt.
    """
    left_out = sorted(registry.plugins.blocked | registry.plugins.disabled)
    said = []
    for layer in layers if left_out else ():
        for name in [name for name in layer.data if name not in _known(registry)]:
            origin = origin_of(layer, (name,))
            if house.is_origin(origin):
                del layer.data[name]
                why = f"no plugin offers such a section, and left out is {', '.join(left_out)}"
                said.append(f"the default `{name}` ({origin}) is set aside: {why}")
    return said


def _known(registry: Registry) -> set[str]:
    """Return the keys that a recipe may have."""
    clashes = {name for kind, name in registry.clashes if kind is RecipeSection}
    return {*Recipe.model_fields, *registry.offers[RecipeSection], *clashes}


def bind(components: Iterable[Component], sections: Iterable[RecipeSection], registry: Registry) -> None:
    """Let each component read those of the sections that its plugin owns."""
    owners: dict[str | None, list[RecipeSection]] = {}
    for section in sections:
        owners.setdefault(registry.plugin_of(section), []).append(section)
    owners.pop(None, None)
    for component in components:
        found = owners.get(registry.plugin_of(component), []) if owners else []
        give_sections(component, [section for section in found if section is not component])
