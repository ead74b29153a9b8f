"""A plugin file that has become an installed package since a run was made: the record is read with the package."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftplug.errors import PluginError
from sftplug.plugin.components import Component
from sftplug.plugin.manager import DISTRIBUTION, Plugin, Plugins, no_plugins
from sftplug.plugin.registry import Registry, build_registry


def words(value: Any) -> Iterator[str]:
    """Yield every text in plain data, keys too: the names of the components in a recipe are among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else ((None, item) for item in value):
            yield from (key,) if isinstance(key, str) else ()
            yield from words(item)


def replace_file(plugins: Plugins, file: Path, used: Container[str]) -> tuple[bool, str]:
    """Return whether installed plugins stand in for a plugin file that is named in a record, and what is to be said.

    They do where they offer all that the file does and the record, with the names `used` in it, needs. One that has the
    file's name and does not is taken out of `plugins`: the run was made with the file.
    """
    registry = build_registry(plugins)
    namesake = plugins.loaded.get(file.stem)
    if (found := stand_ins(registry, file, used)) is not None:
        return True, said(file, found)
    if namesake is not None:
        plugins.leave_out(file.stem)
        return False, f"the run is read with its plugin file {file.name}: the installed {namesake} offers other things."
    return False, ""


def said(file: Path, stand_ins: list[Plugin]) -> str:
    """Return a sentence about what stands in for a plugin file."""
    packages = " and ".join(map(str, stand_ins))
    return f"the plugin file {file.name} of this run is installed by now: the run is read with {packages}."


def stand_ins(registry: Registry, file: Path, used: Container[str]) -> list[Plugin] | None:
    """Return the installed plugins that offer what is `used` of a plugin file; None where there are none.

    Of a file that offers nothing that is used, that is the plugin of its name.
    """
    namesake = registry.plugins.loaded.get(file.stem)
    chosen = [offer.plugin for offers in registry.offers.values() for name, offer in offers.items() if name in used]
    if namesake is None and all(plugin.distribution == DISTRIBUTION for plugin in chosen):
        return None  # the file need not even be run
    try:
        needed = [(kind, name) for kind, name in _offered_by(file) if name in used]
    except PluginError:
        needed = []  # it does not run any more
    if not needed:
        return [namesake] if namesake is not None else None
    found = [offers[name].plugin for kind, name in needed if name in (offers := registry.offers[kind])]
    return list({plugin.name: plugin for plugin in found}.values()) if len(found) == len(needed) else None


def _offered_by(file: Path) -> list[tuple[type[Component], str]]:
    """Return kind and name of all that a plugin file offers. Raises PluginError for one that does not run."""
    alone = no_plugins()
    alone.load_file(file)
    return [(kind, name) for kind, offers in build_registry(alone).offers.items() for name in offers]
