"""Ask plugins for their components, and refuse what a recipe could not choose from without ambiguity."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from sftplug.errors import PluginError
from sftplug.plugin.components import (
    Adapter,
    Callback,
    ChatTemplate,
    Component,
    DatasetFormat,
    DatasetSource,
    Deferred,
    Exporter,
    Head,
    LengthPolicy,
    Loss,
    Masking,
    Metric,
    ModelBuilder,
    ModelPatch,
    Optimizer,
    Policy,
    Quantization,
    RecipeSection,
    RowProcessor,
    Schedule,
)
from sftplug.plugin.errors import place_of, register_owner
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.manager import IN_PROGRAM, Plugin, Plugins
from sftplug.plugin.validation import component_name, problem_of_class
from sftplug.util.arguments import argument

HOOKS: Mapping[str, type[Component]] = {
    "sftplug_dataset_sources": DatasetSource,
    "sftplug_row_processors": RowProcessor,
    "sftplug_dataset_formats": DatasetFormat,
    "sftplug_chat_templates": ChatTemplate,
    "sftplug_maskings": Masking,
    "sftplug_length_policies": LengthPolicy,
    "sftplug_model_builders": ModelBuilder,
    "sftplug_quantizations": Quantization,
    "sftplug_model_patches": ModelPatch,
    "sftplug_adapters": Adapter,
    "sftplug_losses": Loss,
    "sftplug_heads": Head,
    "sftplug_optimizers": Optimizer,
    "sftplug_schedules": Schedule,
    "sftplug_callbacks": Callback,
    "sftplug_metrics": Metric,
    "sftplug_exporters": Exporter,
    "sftplug_policies": Policy,
    "sftplug_recipe_sections": RecipeSection,
}
"""Offer hooks and the kind that each of them offers."""


@dataclass(frozen=True)
class Offer:
    """A component and the plugin that offers it."""

    name: str
    """The name that recipes use."""
    plugin: Plugin
    make: Callable[[], type[Component]]
    library: str | None = None
    """The library that it is read from; None for a class that the plugin's author wrote."""

    @cached_property
    def component(self) -> type[Component]:
        """The class. Raises PluginError when a class that is made only now is not a usable one."""
        return self.make()

    def made(self, component: type[Any] | None) -> bool:
        """Whether `component` is the class; asking does not make it."""
        # `cached_property` keeps what it made in `__dict__`. To read the attribute would make the class, and import its
        # library.
        return component is not None and self.__dict__.get("component") is component

    def __str__(self) -> str:
        if self.library is not None:
            return f"{self.plugin}, from {self.library}"
        return f"{self.plugin}, class {self.component.__name__} in {place_of(self.component)}"


@dataclass(frozen=True, slots=True)
class Clash:
    """One name that several components claim; a recipe that uses it is refused."""

    kind: type[Component]
    name: str
    offers: tuple[Offer, ...]

    def __str__(self) -> str:
        plugins = list(dict.fromkeys(offer.plugin.name for offer in self.offers))
        who = "two plugins offer" if len(plugins) > 1 else f"plugin {plugins[0]} offers twice"
        where = " and ".join(map(str, self.offers))
        blocks = " or ".join(argument("--no-plugin", name) for name in plugins)
        remedy = f"Leave one out with {blocks}, or rename" if len(plugins) > 1 else "Rename"
        return f"{who} the {NOUNS[self.kind]} '{self.name}': {where}. {remedy} one component."


@dataclass(slots=True)
class Registry:
    """What is installed: for each kind, offers by the name that recipes use."""

    plugins: Plugins
    offers: dict[type[Component], dict[str, Offer]] = field(default_factory=dict)
    clashes: dict[tuple[type[Component], str], Clash] = field(default_factory=dict)
    """Names that several components claim: none of these is on offer."""
    unusable: list[str] = field(default_factory=list)
    """What is wrong with components whose options turned out to be no pydantic model when the recipe was read."""

    def names(self, kind: type[Component]) -> list[str]:
        """Return the names that a recipe may use for `kind`, sorted."""
        return sorted(self.offers[kind])

    def classes(self) -> dict[type[Component], Mapping[str, type[Component]]]:
        """Return what is offered without who offers it: kind -> name -> class."""
        return {kind: Classes(offers) for kind, offers in self.offers.items()}

    def plugin_of(self, component: Component) -> str | None:
        """Return the name of the plugin that offers `component`'s class; None for a class no plugin offers."""
        for offers in self.offers.values():
            offer = offers.get(component.type)
            if offer is not None and offer.made(type(component)):
                return offer.plugin.name
        return None

    def without_options(self, kind: type[Component], plugins: Container[str]) -> list[Any]:
        """Return what `plugins` offer of a kind and needs no option, in the order of the names."""
        made = []
        for _, offer in sorted(self.offers[kind].items()):
            if offer.library is None and offer.plugin.name in plugins:
                try:
                    made.append(offer.component.model_validate({}))
                except ValidationError:
                    continue  # it needs an option
        return made

    def warnings(self) -> list[str]:
        """Return a sentence for every plugin that did not load and every name that is claimed twice."""
        return [*map(str, self.plugins.broken.values()), *map(str, self.clashes.values()), *self.unusable]

    def add(self, kind: type[Component], name: str, offer: Offer) -> None:
        """Put a component on offer; take the name off when another one claims it too."""
        # The third that claims a name does not find it on offer, but the clash of the first two, and joins it.
        known = self.clashes.get((kind, name))
        before = known.offers if known else tuple(filter(None, [self.offers[kind].pop(name, None)]))
        if before:
            self.clashes[kind, name] = Clash(kind, name, (*before, offer))
        else:
            self.offers[kind][name] = offer


@dataclass(frozen=True, slots=True)
class Classes(Mapping[str, type[Component]]):
    """The classes of one kind by name; one that is deferred is made when it is asked for."""

    offers: Mapping[str, Offer]

    def __getitem__(self, name: str) -> type[Component]:
        return self.offers[name].component

    def ready(self, name: object) -> type[Component] | None:
        """Return a class if it is there; none is made for the question."""
        offer = self.offers.get(name) if isinstance(name, str) else None
        return offer.component if offer is not None and offer.library is None else None

    def __iter__(self) -> Iterator[str]:
        return iter(self.offers)

    def __len__(self) -> int:
        return len(self.offers)


def build_registry(plugins: Plugins) -> Registry:
    """Collect the components of every loaded plugin.

    A plugin that offers something other than usable components of the hook's kind is given up as broken. A name that
    two components claim is kept among the clashes. Whether either matters depends on the recipe.
    """
    registry = Registry(plugins, {kind: {} for kind in HOOKS.values()})
    # A copy: `give_up` takes a plugin out of `loaded`.
    for plugin in list(plugins.loaded.values()):
        try:
            # All of them, before any is on offer: of a plugin that is broken in its third hook, what the first two
            # offer is not used.
            offered = list(_offered_by(plugin, plugins))
        except PluginError as error:
            plugins.give_up(plugin, error)
            continue
        for kind, offer in offered:
            registry.add(kind, offer.name, offer)
    return registry


def offer_classes(registry: Registry, classes: Iterable[type[Component]]) -> None:
    """Put classes of the running program on offer, which a recipe that is a dict has brought as objects.

    One that a plugin offers is on offer already. Raises PluginError for one that no recipe could choose.
    """
    for component in dict.fromkeys(classes):
        kind = next((kind for kind in HOOKS.values() if issubclass(component, kind)), None)
        if kind is None:
            raise PluginError(f"{component.__name__} is of no kind that a recipe has ({place_of(component)})")
        name = component_name(component)
        known = registry.offers[kind].get(name)
        if known is not None and known.component is component:
            continue
        if (problem := problem_of_class(component)) is not None:
            raise PluginError(f"{component.__name__} {problem} ({place_of(component)})")
        plugin = _in_program(registry.plugins, component.__module__)
        register_owner(component, str(plugin))
        offer = Offer(name, plugin, partial(_itself, component))
        offer.component  # noqa: B018 - nothing is left to be made
        registry.add(kind, name, offer)


def _itself(component: type[Component]) -> type[Component]:
    return component


def _in_program(plugins: Plugins, name: str) -> Plugin:
    """Return the plugin that a module of this program is, whether or not it has hooks."""
    module = sys.modules.get(name) or ModuleType(name)
    for plugin in plugins.loaded.values():
        if plugin.module is module:
            return plugin
    return plugins.loaded.setdefault(name, Plugin(name, module, IN_PROGRAM, ""))


def _offered_by(plugin: Plugin, plugins: Plugins) -> Iterator[tuple[type[Component], Offer]]:
    """Yield (kind, offer) for everything that `plugin` offers. Raises PluginError."""
    for hook, kind in HOOKS.items():
        for offered in plugins.call(hook, [plugin.name]).values():
            if not isinstance(offered, list | tuple):
                raise _wrong(plugin, hook, f"must return a list of component classes, not {type(offered).__name__}")
            yield from ((kind, _offer(plugin, hook, kind, component)) for component in offered)


def _offer(plugin: Plugin, hook: str, kind: type[Component], component: object) -> Offer:
    if isinstance(component, Deferred):
        return Offer(component.name, plugin, partial(_made, plugin, hook, kind, component), component.library)
    checked = _checked(plugin, hook, kind, component)
    register_owner(checked, str(plugin))
    offer = Offer(component_name(checked), plugin, lambda: checked)
    offer.component  # noqa: B018 - nothing is left to be made
    return offer


def _made(plugin: Plugin, hook: str, kind: type[Component], deferred: Deferred) -> type[Component]:
    component = _checked(plugin, hook, kind, deferred.make())
    if component_name(component) != deferred.name:
        raise _wrong(plugin, hook, f"offers '{deferred.name}' and makes '{component_name(component)}'", component)
    register_owner(component, str(plugin))
    return component


def _wrong(plugin: Plugin, hook: str, text: str, component: object = None) -> PluginError:
    place = place_of(component if inspect.isclass(component) else getattr(plugin.module, hook, plugin.module))
    return PluginError(f"plugin {plugin}: {hook}() {text} ({place})")


def _checked(plugin: Plugin, hook: str, kind: type[Component], component: object) -> type[Component]:
    if not (inspect.isclass(component) and issubclass(component, kind)):
        text = f"offers {component!r}, which is not a subclass of sftplug.{kind.__name__}"
        raise _wrong(plugin, hook, text)
    if (problem := problem_of_class(component)) is not None:
        raise _wrong(plugin, hook, f"offers {component.__name__}, which {problem}", component)
    return component
