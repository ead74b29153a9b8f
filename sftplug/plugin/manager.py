"""Find plugins, load them one by one with blame, and remember where each came from.

pluggy's own ``load_setuptools_entrypoints`` does not say which plugin failed and drops the second of two plugins with
one name without a word; so plugins are loaded here, in the order of their names, each on its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from sftplug.errors import PluginError, did_you_mean
from sftplug.plugin import hookspecs
from sftplug.plugin.errors import reason
from sftplug.plugin.validation import explain_import_error, refuse_other_versions, verify_hooks
from sftplug.util.arguments import argument
from sftplug.util.processes import is_main

GROUP = "sftplug"
DISTRIBUTION = "sftplug"
IN_PROGRAM = "python"
"""The distribution of a plugin that is a module of the running program."""
QUALITY = "quality.json"
"""The file in which the kit writes what it has found of a plugin: no code of the plugin."""
DISABLE_VARIABLE = "SFTPLUG_DISABLE_PLUGINS"

_log = logging.getLogger("sftplug.hooks")
_files_log = logging.getLogger("sftplug.plugins")


@dataclass(frozen=True)
class Plugin:
    """A plugin that loaded."""

    name: str
    module: ModuleType
    distribution: str
    """Name of the distribution that installed it, ``file`` for a plugin file that a recipe names, or ``python`` for a
    module of the running program."""
    version: str

    @property
    def source(self) -> Path:
        """The file that holds the plugin's hook implementations."""
        return Path(getattr(self.module, "__file__", None) or self.module.__name__)

    @cached_property
    def sha256(self) -> str:
        """Hash over every file of the plugin: its module, or all of its package, templates and other data too.

        Taken once, so that the record of a run tells what ran and not what stands there when it ends. Empty for a
        module that lies in no file.
        """
        if not self.source.is_file():
            return ""
        folder = _package_folder(self.source)
        if folder is None:
            return hashlib.sha256(self.source.read_bytes()).hexdigest()
        digest = hashlib.sha256()
        for file in _files_of_package(folder):
            # A byte that no path holds parts the two: "ab" that holds "c" is not "a" that holds "bc".
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")


def _package_folder(source: Path) -> Path | None:
    """Return the outermost folder of the package that `source` is in; None for a module on its own."""
    folder = None
    while (source.parent / "__init__.py").is_file():
        folder = source = source.parent
    return folder


def _files_of_package(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return sorted(file for file in found if file != folder / QUALITY)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that is installed and did not load, or a name that two of them claim."""

    name: str
    distribution: str
    version: str
    reason: str
    """What went wrong, with the file and line where it did."""
    error: BaseException | None = None

    def __str__(self) -> str:
        owner = f"{self.distribution} {self.version}".strip()
        return f"plugin '{self.name}' ({owner}) failed to load: {self.reason}"


class NameClash(BrokenPlugin):
    """Several distributions that claim one plugin name; none of them is loaded."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.reason


@dataclass(slots=True)
class Plugins:
    """What was found: plugins that loaded, plugins that did not, and names that were blocked."""

    manager: pluggy.PluginManager
    loaded: dict[str, Plugin] = field(default_factory=dict)
    broken: dict[str, BrokenPlugin] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    """Names that are installed and left out because of ``SFTPLUG_DISABLE_PLUGINS``."""

    def call(self, hook: str, names: Iterable[str] | None = None, **arguments: Any) -> dict[str, Any]:
        """Call `hook` on each of the named plugins (default: all), in name order; return results by plugin name.

        Every one of them is called; then PluginError is raised if any of them failed, with what each said.
        """
        wanted = set(self.loaded if names is None else names)
        results, failures = {}, []
        for plugin in [self.loaded[name] for name in sorted(wanted & self.loaded.keys())]:
            try:
                results.update(self._call_one(plugin, hook, arguments))
            except PluginError as error:
                failures.append(error)
        if failures:
            raise PluginError("\n".join(map(str, failures))) from failures[0].__cause__
        return results

    def _call_one(self, plugin: Plugin, hook: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # Called for all plugins at once, pluggy returns a list without names: whose result, and whose fault, is which?
        others = [other.module for other in self.loaded.values() if other is not plugin]
        caller = self.manager.subset_hook_caller(hook, others)
        if not caller.get_hookimpls():
            return {}
        result = _call_blaming(plugin, hook, caller, arguments)
        _log.debug("%s(%s) of %s -> %s", hook, ", ".join(arguments), plugin, result)
        return {plugin.name: result}

    def load_file(self, file: Path) -> None:
        """Load a plugin from a Python file. Raises PluginError: a file was asked for, so it must load."""
        _load_file(self, file)

    def load_module(self, module: ModuleType) -> None:
        """Load a plugin that is a module of this program; one that is installed too is loaded already.

        Raises PluginError: it was asked for, so it must load.
        """
        name = module.__name__
        if any(plugin.module is module for plugin in self.loaded.values()):
            return
        if name in self.loaded or name in self.broken:
            raise PluginError(f"the module {module.__name__} has the name of a plugin that is installed: {name}.")
        _register(self, Plugin(name, module, IN_PROGRAM, ""))

    def leave_out(self, name: str) -> None:
        """Take out a plugin that loaded, in favour of another of its name."""
        self.manager.unregister(self.loaded.pop(name).module)

    def give_up(self, plugin: Plugin, error: PluginError) -> None:
        """Take out a plugin that loaded and turned out to be broken."""
        self.manager.unregister(plugin.module)
        del self.loaded[plugin.name]
        self.broken[plugin.name] = BrokenPlugin(plugin.name, plugin.distribution, plugin.version, str(error), error)


def no_plugins() -> Plugins:
    """Return a place for plugins in which there are none yet."""
    return Plugins(_new_manager())


def load_plugins(
    blocked: Iterable[str] = (),
    files: Iterable[str] = (),
    *,
    with_hook: str | None = None,
    only: Iterable[str] | None = None,
) -> Plugins:
    """Load every installed plugin, except the `blocked` ones: names, or ``DISTRIBUTION:NAME`` for one of two.

    A plugin that fails to load, and a name that two distributions claim, are kept in ``broken``: whether that matters
    depends on the recipe. A blocked name that is neither installed nor one of `files`, the names of plugins that the
    recipe brings as files, raises PluginError. `with_hook` leaves out those in whose module the name of that hook does
    not stand, and `only` those of other names: they are not even imported.
    """
    blocked, found = frozenset(blocked), _entry_points_by_name()
    _refuse_unknown_blocks(blocked, [*_block_names(found), *files])
    off = frozenset(name for name, entries in found.items() if _is_off(entries))
    plugins = Plugins(_new_manager(), blocked=blocked, disabled=off)
    wanted = found.keys() - off if only is None else (found.keys() - off) & set(only)
    for name in sorted(wanted):
        entries = [entry for entry in found[name] if not {name, _block_name(entry)} & blocked]
        if with_hook is not None:
            entries = [entry for entry in entries if _mentions(entry, with_hook)]
        if len(entries) == 1:
            _load_entry_point(plugins, entries[0])
        elif entries:
            plugins.broken[name] = _clash(name, entries)
    return plugins


def installed_among(blocked: Iterable[str]) -> frozenset[str]:
    """Return those of some names to be blocked that installed plugins have; no plugin is imported."""
    return frozenset(blocked) & {*_block_names(_entry_points_by_name())}


def refuse_unknown_blocks(blocked: Iterable[str], files: Iterable[str] = ()) -> None:
    """Raise PluginError for a name to be blocked that is neither installed nor one of `files`; nothing is imported."""
    _refuse_unknown_blocks(frozenset(blocked), [*_block_names(_entry_points_by_name()), *files])


# --- find -------------------------------------------------------------------------------------------------------------


def _entry_points_by_name() -> dict[str, list[EntryPoint]]:
    """Return the entry points of the group by name: one each, unless distributions claim the same name."""
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        # An editable install beside stale metadata can list the very same entry point twice: that is not a clash.
        found.setdefault(entry.name, {}).setdefault((_distribution(entry)[0], entry.value), entry)
    return {name: [entries[key] for key in sorted(entries)] for name, entries in found.items()}


def _mentions(entry: EntryPoint, word: str) -> bool:
    """Whether a word stands in the module of an entry point, which is not imported; True where it cannot be read."""
    try:
        spec = importlib.util.find_spec(entry.module)
    except (ImportError, ValueError, AttributeError):
        return True  # loading it says what is wrong
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return True
    return word.encode() in Path(spec.origin).read_bytes()


def _is_off(entries: Iterable[EntryPoint]) -> bool:
    """Whether plugins of others are switched off, and these are no others than they."""
    switch = os.environ.get(DISABLE_VARIABLE, "") not in ("", "0")
    return switch and all(_distribution(entry)[0] != DISTRIBUTION for entry in entries)


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return _name_and_version(entry.dist) if entry.dist else ("unknown", "")


@cache
def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    """Return both from the metadata, which importlib parses anew each time it is asked."""
    return distribution.metadata["Name"], distribution.version


def _clash(name: str, entries: list[EntryPoint]) -> NameClash:
    owners = " and ".join(map(_describe, entries))
    blocks = " or ".join(argument("--no-plugin", _block_name(entry)) for entry in entries)
    distributions = " and ".join(" ".join(_distribution(entry)).strip() for entry in entries)
    return NameClash(
        name,
        distributions,
        "",
        f"two plugins are named '{name}': {owners}. Uninstall one of them, leave one out with {blocks}, "
        "or ask its author for another entry-point name.",
    )


def _describe(entry: EntryPoint) -> str:
    name, version = _distribution(entry)
    place = entry.dist.locate_file(entry.module.replace(".", "/")) if entry.dist else entry.module
    return f"{name} {version} ({entry.value}, {place})"


def _block_name(entry: EntryPoint) -> str:
    return f"{_distribution(entry)[0]}:{entry.name}"


def _block_names(found: Mapping[str, list[EntryPoint]]) -> Iterator[str]:
    for name, entries in found.items():
        yield name
        yield from map(_block_name, entries)


def _refuse_unknown_blocks(blocked: frozenset[str], known: list[str]) -> None:
    for name in sorted(blocked - set(known)):
        installed = ", ".join(sorted(name for name in known if ":" not in name))
        raise PluginError(
            f"{argument('--no-plugin', name)}: no plugin of that name is installed.{did_you_mean(name, known)} "
            f"Installed: {installed}."
        )


# --- load -------------------------------------------------------------------------------------------------------------


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _load_entry_point(plugins: Plugins, entry: EntryPoint) -> None:
    distribution, version = _distribution(entry)
    try:
        if entry.dist is not None and distribution != DISTRIBUTION:
            refuse_other_versions(entry.dist)
        # Whatever a stranger's module raises at import is that plugin's fault and must not end another's run.
        _register(plugins, Plugin(entry.name, _module(entry.load()), distribution, version))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - kept with its reason, raised if the recipe needs it
        why = reason(error) + explain_import_error(error)
        plugins.broken[entry.name] = BrokenPlugin(entry.name, distribution, version, why, error)


def _module(loaded: object) -> ModuleType:
    if not isinstance(loaded, ModuleType):
        raise PluginError(f'its entry point must name a module, as in `acme = "acme_plugin"`, not {loaded!r}')
    return loaded


def _load_file(plugins: Plugins, file: Path) -> None:
    name = file.stem
    if not file.is_file():
        raise PluginError(f"plugin file {file} does not exist")
    if name in plugins.loaded or name in plugins.broken:
        owner = plugins.loaded.get(name) or plugins.broken[name]
        if getattr(owner, "distribution", "") == "file":
            raise PluginError(f"two plugin files are named '{name}', or one is listed twice: {file}. Rename one.")
        raise PluginError(
            f"plugin file {file} has the name of an installed plugin, {owner}. Rename the file, or take it out of "
            "`plugins:`: what is installed is there without."
        )
    try:
        _register(plugins, Plugin(name, _import_file(file), "file", ""))
    except (Exception, SystemExit) as error:
        why = reason(error) + explain_import_error(error)
        raise PluginError(f"plugin file {file} failed to load: {why}") from error


def _import_file(file: Path) -> ModuleType:
    # The path is part of the module's name: two recipes may each have a `my_format.py`.
    module_name = f"sftplug_file_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    # The very bytes that are shown are run, whatever happens to the file meanwhile.
    source = file.read_bytes()
    _announce(file, hashlib.sha256(source).hexdigest())
    exec(compile(source, str(file), "exec"), module.__dict__)  # what the recipe asks for by naming the file
    return module


@cache
def _announce(file: Path, sha256: str) -> None:
    """Show, before it is run, which file is; once for each content. Without any set-up, logging goes to stderr."""
    if is_main():  # of several processes, one says it
        _files_log.warning("running the plugin file %s (sha256 %s)", file, sha256)


def _register(plugins: Plugins, plugin: Plugin) -> None:
    """Register `plugin`. Raises PluginError for a misspelt hook, a wrong signature, or no hook at all."""
    other = next((other for other in plugins.loaded.values() if other.module is plugin.module), None)
    if other is not None:
        raise PluginError(f"its module is that of plugin {other}: an entry point each is enough ({plugin.source})")
    # pluggy would let a misspelt hook pass, and would not say on which line a wrong one stands.
    verify_hooks(plugin.module)
    plugins.manager.register(plugin.module, name=plugin.name)
    plugins.loaded[plugin.name] = plugin


def _call_blaming(plugin: Plugin, hook: str, caller: Callable[..., list[Any]], arguments: Mapping[str, Any]) -> Any:
    try:
        results = caller(**arguments)
    except Exception as error:
        raise PluginError(f"plugin {plugin}: {hook}() failed: {reason(error)}") from error
    # pluggy leaves out None, which is what an observer returns.
    return results[0] if results else None
