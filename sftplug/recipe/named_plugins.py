"""Load the plugins that a recipe and a house file name, and say of each that cannot be had why not."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from sftplug.errors import PluginError, Problem, did_you_mean
from sftplug.plugin.manager import DISABLE_VARIABLE, Plugins, load_plugins
from sftplug.plugin.registry import Registry, build_registry
from sftplug.recipe.given import LoadRequest
from sftplug.recipe.house import House
from sftplug.recipe.model import Recipe
from sftplug.recipe.places import is_record
from sftplug.recipe.problems import origin_of, problem_at
from sftplug.recipe.replaced import replace_file
from sftplug.recipe.section import resolve_path
from sftplug.recipe.yaml import Path_, Tree


@dataclass(frozen=True, slots=True)
class Named:
    """A plugin that a recipe, or a house file, lists."""

    entry: str
    tree: Tree
    path: Path_

    @property
    def name(self) -> str:
        """The name of the plugin."""
        return plugin_name(self.entry)


def named_in(tree: Tree) -> list[Named]:
    """Return what a tree lists under ``plugins``."""
    listed = tree.data.get("plugins") or []
    texts = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
    paths = [("plugins",)] if isinstance(listed, str) else [("plugins", index) for index in range(len(texts))]
    return [Named(text, tree, path) for text, path in zip(texts, paths, strict=True) if isinstance(text, str)]


def load_named_plugins(
    tree: Tree, house: House, asked: LoadRequest, used: Container[str] = ()
) -> tuple[Registry, list[Problem], list[str]]:
    """Load what is installed, and the files and modules that are named; say what is named and cannot be had.

    Of a record, with the names `used` in it, files that became packages are left out; this is said, too.
    """
    by_house, by_recipe = named_in(house.tree), named_in(tree)
    files = [item.name for item in (*by_house, *by_recipe) if is_plugin_file(item.entry)]
    plugins = load_plugins(asked.blocked, files)
    for module in asked.modules:
        plugins.load_module(module)
    # What the command line leaves out is left out, also where the recipe lists it.
    wanted = [item for item in (*by_house, *_beside(by_house, by_recipe, asked)) if item.name not in plugins.blocked]
    aged = _leave_out_replaced(plugins, wanted, tree, used) if asked.versions is not None else []
    texts = [_load_file(plugins, item.entry) if is_plugin_file(item.entry) else None for item in wanted]
    registry = build_registry(plugins)
    said = [text or _lacking(plugins, item.name) for text, item in zip(texts, wanted, strict=True)]
    found = [problem_at(item.tree, item.path, text) for item, text in zip(wanted, said, strict=True) if text]
    return registry, found, aged


def _leave_out_replaced(plugins: Plugins, wanted: list[Named], record: Tree, used: Container[str]) -> list[str]:
    """Take out of `wanted` each plugin file of a record for which installed plugins stand in; return what to say."""
    aged = []
    for item in [item for item in wanted if item.tree is record and is_plugin_file(item.entry)]:
        is_replaced, sentence = replace_file(plugins, Path(resolve_path(item.entry)), used)
        aged += [sentence] if sentence else []
        if is_replaced:
            wanted.remove(item)
    return aged


def _beside(by_house: list[Named], by_recipe: list[Named], asked: LoadRequest) -> Iterator[Named]:
    """Yield what the recipe lists and the house file does not.

    The same file may stand in both. Of the record of a run, the copy of a plugin file that is the house's gives way to
    that: an installed plugin is that of today, too.
    """
    files = {resolve_path(item.entry) for item in by_house if is_plugin_file(item.entry)}
    names = {item.name for item in by_house if is_plugin_file(item.entry)}
    of_record = isinstance(asked.reference, str) and is_record(Path(asked.reference))
    for item in by_recipe:
        is_same = resolve_path(item.entry) in files or (of_record and item.name in names)
        if not (is_plugin_file(item.entry) and is_same):
            yield item


def with_files(recipe: Recipe, tree: Tree, registry: Registry, house: House) -> Recipe:
    """Return a recipe that lists the house's plugin files whose components it names: its record needs them anywhere."""
    owners = {registry.plugin_of(part) for _, part in recipe.components()}
    listed, names = [*recipe.plugins], {plugin_name(entry) for entry in recipe.plugins}
    for item in named_in(house.tree):
        if is_plugin_file(item.entry) and item.name in owners - names:
            tree.origins["plugins", len(listed)] = origin = origin_of(item.tree, item.path)
            tree.origins.setdefault(("plugins",), origin)
            listed.append(item.entry)
    if len(listed) > len(recipe.plugins):
        tree.data["plugins"] = listed
    return recipe.model_copy(update={"plugins": tuple(listed)})


def _load_file(plugins: Plugins, name: str) -> str | None:
    try:
        plugins.load_file(Path(resolve_path(name)))
    except PluginError as error:
        return str(error)
    return None


def _lacking(plugins: Plugins, name: str) -> str | None:
    if name in plugins.broken:
        return str(plugins.broken[name])
    if name in plugins.loaded:
        return None
    if name in plugins.disabled:
        return f"plugin '{name}' is installed, but {DISABLE_VARIABLE} is set: only sftplug's own are loaded."
    known = ", ".join(sorted(plugins.loaded))
    return f"no plugin '{name}' is installed.{did_you_mean(name, plugins.loaded)} Installed: {known}."


def plugin_name(entry: str) -> str:
    """Return the name of the plugin that an entry of ``plugins:`` asks for: a file's is its own, without ``.py``."""
    return Path(entry).stem if is_plugin_file(entry) else entry


def is_plugin_file(name: str) -> bool:
    """Whether an entry of ``plugins:`` names a file rather than an installed plugin."""
    return name.endswith(".py")
