"""A run that was begun with a plugin file, and is resumed with a recipe that has the package in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftplug.recipe.named_plugins import is_plugin_file, plugin_name
from sftplug.recipe.replaced import said, stand_ins, words

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run.directory import RunDirectory


def drop_replaced(before: dict[str, Any], loaded: LoadedRecipe, directory: RunDirectory) -> list[str]:
    """Name in the record `before` a plugin file as `loaded` has it where it is a package by now; return what is said.

    A recipe need not list an installed plugin; one that still lists the file is of the file.
    """
    listed = {plugin_name(entry): entry for entry in loaded.recipe.plugins}
    kept, sentences = list[str](), list[str]()
    for entry in before["plugins"]:
        name = plugin_name(entry)
        file = directory.path / entry
        is_gone = is_plugin_file(entry) and not is_plugin_file(listed.get(name, ""))
        found = stand_ins(loaded.registry, file, frozenset(words(before))) if is_gone else None
        kept += [entry] if found is None else [plugin.name for plugin in found if plugin.name in listed]
        sentences += [said(file, found)] if found is not None else []
    before["plugins"] = kept
    return sentences
