"""Calls on a class of components: its options as an earlier version of it had them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from sftplug.plugin.calls.check import kind_of
from sftplug.plugin.components import Component
from sftplug.plugin.errors import plugin_error, plugin_errors


def upgraded(component: type[Component], options: Mapping[str, Any], from_version: str) -> dict[str, Any]:
    """Return `options`, without ``type``, as the class takes them today. Raises PluginError for anything but a dict."""
    with plugin_errors(component, "upgrade"):
        made = component.upgrade(deepcopy(dict(options)), from_version)
    if not isinstance(made, dict) or not all(isinstance(name, str) for name in made):
        raise plugin_error(component, "upgrade", f"must return a dict of options by name, not {kind_of(made)}")
    if "type" in made:
        raise plugin_error(component, "upgrade", "must return options alone, and no `type`: the name stays")
    return made
