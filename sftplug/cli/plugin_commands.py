"""Commands that plugins bring, beside those of sftplug."""

from __future__ import annotations

from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup

from sftplug.errors import PluginError, SftplugError
from sftplug.plugin.additions import Command, Commands, plugin_commands
from sftplug.plugin.errors import reason
from sftplug.util.arguments import commanded
from sftplug.util.text import visible

# Newer versions of typer hold a copy of click, and older ones import it: the class is found by its child.
ClickException: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class CommandsOfPlugins(TyperGroup):
    """The commands of sftplug; those of plugins are looked for when none of these is meant, or all are listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names, those of plugins last; say which are not to be had."""
        own = super().list_commands(ctx)
        offered = _offered(frozenset(own))
        for sentence in (*offered.clashes.values(), *offered.broken):
            typer.echo(f"warning: {visible(sentence)}", err=True)
        return [*own, *sorted(offered.found)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command. Raises PluginError for one that two plugins offer."""
        if (own := super().get_command(ctx, cmd_name)) is not None:
            return own
        offered = _offered(frozenset(super().list_commands(ctx)))
        if cmd_name in offered.clashes:
            raise PluginError(offered.clashes[cmd_name])
        command = offered.found.get(cmd_name)
        if command is None:
            for sentence in offered.broken:  # it may be the very one
                typer.echo(f"note: {visible(sentence)}", err=True)
            return None
        return _made(command)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; errors speak of options meanwhile, and not of arguments of functions."""
        with commanded():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what one of a plugin raises by accident is told as that plugin's."""
        try:
            return super().invoke(ctx)
        except (SftplugError, ClickException, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            name = ctx.invoked_subcommand or ""
            if super().get_command(ctx, name) is not None:
                raise
            plugin = _offered(frozenset(super().list_commands(ctx))).found[name].plugin
            raise PluginError(f"plugin {plugin}: the command '{name}' failed: {reason(error)}") from error


@cache
def _offered(own: frozenset[str]) -> Commands:
    return plugin_commands(own)


def _made(command: Command) -> Any:
    """Return what click runs."""
    if isinstance(command.run, typer.Typer):
        made: Any = typer.main.get_group(command.run)
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(command.name)(command.run)
        made = typer.main.get_command(app)
    made.name = command.name
    return made
