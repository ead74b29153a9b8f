"""What plugins offer besides components: commands, and recipes.

Both are asked for before any recipe is read, and often: `sftplug --help` lists the commands. So only such plugins are
loaded as have the hook's name in the module of their entry point; reading fifteen short files takes no time, importing
them does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftplug.errors import PluginError
from sftplug.plugin.errors import place_of
from sftplug.plugin.manager import Plugin, Plugins, installed_among, load_plugins


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a plugin."""

    name: str
    plugin: Plugin
    run: Callable[..., Any]
    """A function whose annotations typer understands, or a `typer.Typer` with commands of its own."""

    def __str__(self) -> str:
        where = f", {place_of(self.run)}" if inspect.isfunction(self.run) else ""
        return f"plugin {self.plugin}{where}"


@dataclass(slots=True)
class Commands:
    """The commands of all plugins."""

    found: dict[str, Command] = field(default_factory=dict)
    clashes: dict[str, str] = field(default_factory=dict)
    """Name -> who claims it beside whom; it is not to be had."""
    broken: list[str] = field(default_factory=list)
    """A sentence for each plugin that may have commands and did not load."""

    def add(self, command: Command, own: Container[str]) -> None:
        """Take a command in, unless another one has its name: one of sftplug's `own`, or of a plugin."""
        other = "sftplug itself" if command.name in own else self.found.pop(command.name, None)
        if other is not None:
            both = f"two offer the command '{command.name}': {other} and {command}."
            self.clashes[command.name] = f"{both} Uninstall one plugin, or ask its author for another name."
        elif command.name not in self.clashes:
            self.found[command.name] = command


def plugin_commands(own: Container[str], blocked: Iterable[str] = ()) -> Commands:
    """Return the commands of all installed plugins that are not `blocked`; `own` are the names of sftplug's own."""
    plugins, commands = load_plugins(blocked, with_hook="sftplug_commands"), Commands()
    for plugin, offered in _offered(plugins, "sftplug_commands", commands.broken):
        try:
            for command in _commands(plugin, offered):
                commands.add(command, own)
        except PluginError as error:
            commands.broken.append(str(error))
    return commands


def _commands(plugin: Plugin, offered: object) -> Iterator[Command]:
    if not isinstance(offered, Mapping):
        raise _wrong(plugin, "sftplug_commands", f"a dict of commands by name, not {type(offered).__name__}")
    for name, run in offered.items():
        if not is_command(name, run):
            raise _wrong(plugin, "sftplug_commands", f"functions or typer apps by name, not {name!r}: {run!r}")
        yield Command(name, plugin, run)


def is_command(name: object, run: object) -> bool:
    """Whether a plugin may offer `run`, a function or a typer app, as the command `name`."""
    import typer

    is_name = isinstance(name, str) and name.replace("-", "_").isidentifier()
    return is_name and (isinstance(run, typer.Typer) or callable(run))


def plugin_recipes(
    names: Iterable[str] | None = None, broken: list[str] | None = None, blocked: Iterable[str] = ()
) -> dict[str, tuple[Plugin, Path]]:
    """Return name -> plugin and file of every recipe that a plugin ships; ``acme/base`` is ``base.yaml`` of `acme`.

    With `names` only plugins of these names are loaded, and none that is `blocked`. `broken` is told what is wrong
    with others.
    """
    # Names of a recipe's own plugin files are among them, too: what these are is not known yet.
    plugins = load_plugins(installed_among(blocked), with_hook="sftplug_recipes", only=names)
    broken = [] if broken is None else broken
    found = {}
    for plugin, folder in _offered(plugins, "sftplug_recipes", broken):
        if not (isinstance(folder, Path) and folder.is_dir()):
            broken.append(str(_wrong(plugin, "sftplug_recipes", f"a folder of recipes as a Path, not {folder!r}")))
            continue
        for file in sorted(folder.rglob("*.yaml")):
            found[f"{plugin.name}/{file.relative_to(folder).with_suffix('').as_posix()}"] = (plugin, file)
    return found


def _offered(plugins: Plugins, hook: str, broken: list[str]) -> Iterator[tuple[Plugin, Any]]:
    """Yield each plugin with what its hook returns; what is wrong with others is told to `broken`."""
    broken += map(str, plugins.broken.values())
    for name, plugin in plugins.loaded.items():
        try:
            results = plugins.call(hook, [name])
        except PluginError as error:
            broken.append(str(error))
            continue
        yield from ((plugin, offered) for offered in results.values() if offered is not None)


def _wrong(plugin: Plugin, hook: str, wanted: str) -> PluginError:
    return PluginError(f"plugin {plugin}: {hook}() must return {wanted} ({place_of(getattr(plugin.module, hook))})")
