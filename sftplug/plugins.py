"""Find plugins, load them one by one with blame, and remember where each came from.

pluggy's own ``load_setuptools_entrypoints`` does not say which plugin failed and drops the second of two plugins with
one name without a word; so plugins are loaded here, in the order of their names, each on its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from sftplug import hookspecs
from sftplug.errors import PluginError, did_you_mean

GROUP = "sftplug"
DISTRIBUTION = "sftplug"
DISABLE_VARIABLE = "SFTPLUG_DISABLE_PLUGINS"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that loaded."""

    name: str
    module: ModuleType
    distribution: str
    """Name of the distribution that installed it, or ``file`` for a plugin file that a recipe names."""
    version: str

    @property
    def source(self) -> Path:
        """The file that holds the plugin's hook implementations."""
        return Path(self.module.__file__ or self.module.__name__)

    @property
    def sha256(self) -> str:
        """Hash over every file of the plugin: its module, or all of its package, templates and other data too."""
        folder = _package_folder(self.source)
        files = [self.source] if folder is None else _files_of_package(folder)
        digest = hashlib.sha256()
        for file in files:
            name = file.name if folder is None else file.relative_to(folder).as_posix()
            digest.update(name.encode() + b"\0" + file.read_bytes())
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
    return sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that is installed and did not load."""

    name: str
    distribution: str
    version: str
    reason: str
    """What went wrong, with the file and line where it did."""
    error: BaseException

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version}) failed to load: {self.reason}"


@dataclass(slots=True)
class Plugins:
    """What was found: plugins that loaded, plugins that did not, and names that were blocked."""

    manager: pluggy.PluginManager
    loaded: dict[str, Plugin] = field(default_factory=dict)
    broken: dict[str, BrokenPlugin] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()

    def call(self, hook: str, names: Iterable[str] | None = None, **arguments: Any) -> dict[str, Any]:
        """Call `hook` on each of the named plugins (default: all), in name order; return results by plugin name."""
        wanted = set(self.loaded if names is None else names)
        results = {}
        for name in sorted(wanted & self.loaded.keys()):
            others = [plugin.module for plugin in self.loaded.values() if plugin.name != name]
            caller = self.manager.subset_hook_caller(hook, others)
            if caller.get_hookimpls():
                results[name] = _call_blaming(self.loaded[name], caller, arguments)
        return results

    def load_file(self, file: Path) -> None:
        """Load a plugin from a Python file. Raises PluginError: a file was asked for, so it must load."""
        _load_file(self, file)


def load_plugins(blocked: Iterable[str] = ()) -> Plugins:
    """Load every installed plugin, except the `blocked` names.

    An installed plugin that fails to load is kept in ``broken``: whether that matters depends on the recipe. Two
    plugins with one name, and a blocked name that is not installed, raise PluginError.
    """
    found = _entry_points_by_name()
    plugins = Plugins(_new_manager(), blocked=frozenset(blocked))
    _refuse_unknown_blocks(plugins.blocked, found)
    for name in sorted(found.keys() - plugins.blocked):
        _load_entry_point(plugins, found[name])
    return plugins


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _entry_points_by_name() -> dict[str, EntryPoint]:
    """Return the entry points of the group by name; two distributions that claim one name are an error."""
    found: dict[str, EntryPoint] = {}
    only_builtin = os.environ.get(DISABLE_VARIABLE, "") not in ("", "0")
    for entry in entry_points(group=GROUP):
        if only_builtin and _distribution(entry)[0] != DISTRIBUTION:
            continue
        other = found.setdefault(entry.name, entry)
        # An editable install beside stale metadata can list the very same entry point twice: that is no clash.
        if other.value != entry.value or _distribution(other)[0] != _distribution(entry)[0]:
            raise PluginError(
                f"two plugins are named '{entry.name}': {_describe(other)} and {_describe(entry)}. "
                "Uninstall one of them, or ask its author for another entry-point name."
            )
    return found


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return _name_and_version(entry.dist) if entry.dist else ("unknown", "")


@cache
def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    """Return both from the metadata, which importlib parses anew each time it is asked."""
    return distribution.metadata["Name"], distribution.version


def _describe(entry: EntryPoint) -> str:
    name, version = _distribution(entry)
    return f"{name} {version} ({entry.value})"


def _refuse_unknown_blocks(blocked: frozenset[str], found: Iterable[str]) -> None:
    names = set(found)
    for name in sorted(blocked - names):
        raise PluginError(
            f"--no-plugin {name}: no plugin of that name is installed.{did_you_mean(name, names)} "
            f"Installed: {', '.join(sorted(names))}."
        )


def _load_entry_point(plugins: Plugins, entry: EntryPoint) -> None:
    distribution, version = _distribution(entry)
    try:
        # Whatever a stranger's module raises at import is that plugin's fault and must not end another's run.
        module = entry.load()
        plugin = Plugin(entry.name, module, distribution, version)
        _register(plugins, plugin)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - kept with its reason, raised if the recipe needs it
        reason = _reason(error)
        plugins.broken[entry.name] = BrokenPlugin(entry.name, distribution, version, reason, error)


def _load_file(plugins: Plugins, file: Path) -> None:
    name = file.stem
    if not file.is_file():
        raise PluginError(f"plugin file {file} does not exist")
    if name in plugins.loaded or name in plugins.broken:
        owner = plugins.loaded.get(name) or plugins.broken[name]
        raise PluginError(f"plugin file {file} has the name of an installed plugin, {owner}. Rename the file.")
    try:
        module = _import_file(file)
        _register(plugins, Plugin(name, module, "file", ""))
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin file {file} failed to load: {_reason(error)}") from error


def _import_file(file: Path) -> ModuleType:
    # The path is part of the module's name: two recipes may each have a `my_format.py`.
    module_name = f"sftplug_file_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def _register(plugins: Plugins, plugin: Plugin) -> None:
    """Register `plugin`; a misspelt hook, a wrong signature or no hook at all is an error that names it."""
    manager = plugins.manager
    manager.register(plugin.module, name=plugin.name)
    try:
        # Only pluggy's check_pending() notices a misspelt hook; after each plugin, so that the blame is right.
        manager.check_pending()
        if not manager.get_hookcallers(plugin.module):
            raise PluginError("it implements no hook. Mark its functions with @sftplug.hookimpl.")
    except (pluggy.PluginValidationError, PluginError):
        manager.unregister(plugin.module)
        raise
    plugins.loaded[plugin.name] = plugin


def _call_blaming(plugin: Plugin, caller: Callable[..., list[Any]], arguments: dict[str, Any]) -> Any:
    try:
        results = caller(**arguments)
    except Exception as error:
        raise PluginError(f"plugin {plugin} failed in a hook: {_reason(error)}") from error
    # pluggy leaves out None, which is what an observer returns.
    return results[0] if results else None


def _reason(error: BaseException) -> str:
    """Say what went wrong and on which line: the innermost frame outside of the import machinery."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, PluginError):
        text = str(error)
    if isinstance(error, pluggy.PluginValidationError):
        text = _validation_reason(error)
    if isinstance(error, SyntaxError):
        return f"{text.splitlines()[0]} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


def _validation_reason(error: pluggy.PluginValidationError) -> str:
    text = " ".join(str(error).split())
    hooks = [name for name in dir(hookspecs) if name.startswith("sftplug_")]
    unknown = text.split("unknown hook ", 1)
    if len(unknown) == 2:
        text += did_you_mean(unknown[1].split()[0].strip("'"), hooks)
    return text


def _is_foreign(filename: str) -> bool:
    own = {__file__, pluggy.__file__}
    return not (
        filename.startswith("<frozen") or filename in own or "/importlib/" in filename or "/pluggy/" in filename
    )
