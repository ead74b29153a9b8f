"""Ask plugins for their components, and refuse what a recipe could not choose from without ambiguity."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sftplug.components import (
    Adapter,
    Callback,
    ChatTemplate,
    Component,
    DatasetFormat,
    DatasetSource,
    LengthPolicy,
    Masking,
    ModelBuilder,
    Quantization,
)
from sftplug.errors import PluginError
from sftplug.plugins import Plugin, Plugins

HOOKS: Mapping[str, type[Component]] = {
    "sftplug_dataset_sources": DatasetSource,
    "sftplug_dataset_formats": DatasetFormat,
    "sftplug_chat_templates": ChatTemplate,
    "sftplug_maskings": Masking,
    "sftplug_length_policies": LengthPolicy,
    "sftplug_model_builders": ModelBuilder,
    "sftplug_quantizations": Quantization,
    "sftplug_adapters": Adapter,
    "sftplug_callbacks": Callback,
}
"""Offer hooks and the kind that each of them offers."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A component class and the plugin that offers it."""

    component: type[Component]
    plugin: Plugin


@dataclass(slots=True)
class Registry:
    """What is installed: for each kind, offers by the name that recipes use."""

    plugins: Plugins
    offers: dict[type[Component], dict[str, Offer]] = field(default_factory=dict)

    def names(self, kind: type[Component]) -> list[str]:
        """Return the names that a recipe may use for `kind`, sorted."""
        return sorted(self.offers[kind])

    def plugin_of(self, component: Component) -> str | None:
        """Return the name of the plugin that offers `component`'s class; None for a class no plugin offers."""
        for offers in self.offers.values():
            offer = offers.get(component.type)
            if offer is not None and offer.component is type(component):
                return offer.plugin.name
        return None


def build_registry(plugins: Plugins) -> Registry:
    """Collect the components of every loaded plugin.

    Raises PluginError when a plugin offers something that is not a usable component of the hook's kind, or when two
    components claim one name; the text names every plugin concerned.
    """
    registry = Registry(plugins, {kind: {} for kind in HOOKS.values()})
    for hook, kind in HOOKS.items():
        for name, offered in plugins.call(hook).items():
            plugin = plugins.loaded[name]
            for component in _checked_list(plugin, hook, offered):
                _add(registry.offers[kind], kind, Offer(_checked(plugin, hook, kind, component), plugin))
    return registry


def _checked_list(plugin: Plugin, hook: str, offered: object) -> list[object]:
    if not isinstance(offered, list | tuple):
        raise PluginError(
            f"plugin {plugin}: {hook}() must return a list of component classes, "
            f"not {type(offered).__name__} ({plugin.source})"
        )
    return list(offered)


def _checked(plugin: Plugin, hook: str, kind: type[Component], component: object) -> type[Component]:
    where = f"plugin {plugin}: {hook}() offers {component!r}"
    if not (inspect.isclass(component) and issubclass(component, kind)):
        raise PluginError(f"{where}, which is no subclass of sftplug.{kind.__name__} ({plugin.source})")
    if inspect.isabstract(component):
        missing = ", ".join(sorted(component.__abstractmethods__))
        raise PluginError(f"{where}, which does not define {missing} ({plugin.source})")
    if not isinstance(component_name(component), str):
        raise PluginError(f"{where}, which has no name: give it `type: Literal['name'] = 'name'` ({plugin.source})")
    return component


def component_name(component: type[Component]) -> Any:
    """Return the name under which recipes choose `component`: the default of its ``type`` field."""
    return component.model_fields["type"].default


def _add(offers: dict[str, Offer], kind: type[Component], offer: Offer) -> None:
    name = component_name(offer.component)
    other = offers.get(name)
    if other is not None:
        raise PluginError(
            f"two plugins offer the {kind.__name__} '{name}': {other.plugin} in {other.plugin.source} and "
            f"{offer.plugin} in {offer.plugin.source}. Block one with --no-plugin, or rename one component."
        )
    offers[name] = offer
