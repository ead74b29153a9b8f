"""Plugins on the package index that pip is set up for: found, and installed."""

from __future__ import annotations

import importlib
from importlib.metadata import distribution

from packaging.requirements import InvalidRequirement, Requirement

from sftplug.errors import PluginError
from sftplug.libraries.package_index import ListedPlugin, install, search
from sftplug.plugin.manager import DISTRIBUTION, GROUP


def search_plugins(*words: str) -> list[ListedPlugin]:
    """Return the plugins on the index in whose name, summary or keywords all `words` stand; without words, all.

    They are those whose name begins with ``sftplug-`` and that say that they are one. The index is the one that pip is
    set up for; its list of all names is read, which is long on PyPI. Raises PluginError for an index that cannot be
    asked.
    """
    return search(words)


def add_plugin(requirement: str) -> list[str]:
    """Install a plugin with pip into the environment of this program; return the names of the plugins in it.

    `requirement` is what pip takes, ``sftplug-acme`` or ``sftplug-acme==1.2``. This version of sftplug stays: a plugin
    that needs another is refused by pip, whose output is printed. A program that runs may hold modules of a version
    before, and is to be started anew. Raises PluginError for what is no name, what pip does not install, and what is
    no plugin.
    """
    wanted = _requirement(requirement)
    here = distribution(DISTRIBUTION).version
    if code := install(str(wanted), f"{DISTRIBUTION}=={here}"):
        raise PluginError(f"pip has not installed '{wanted}' (exit code {code}): what it says stands above.")
    importlib.invalidate_caches()
    offered = sorted(entry.name for entry in distribution(wanted.name).entry_points if entry.group == GROUP)
    if not offered:
        raise PluginError(
            f"{wanted.name} is installed, and is no plugin: it has no entry point in the group `{GROUP}`. "
            f"`pip uninstall {wanted.name}` removes it."
        )
    return offered


def _requirement(name: str) -> Requirement:
    """Return what pip is to install. Raises PluginError for what is no name, such as an option of pip's."""
    try:
        return Requirement(name)
    except InvalidRequirement as error:
        said = f"'{name}' names no package: {str(error).splitlines()[0]}."
        raise PluginError(f"{said} Write its name, as `sftplug plugins search` has it.") from error
