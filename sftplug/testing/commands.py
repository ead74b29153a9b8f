"""The laws of commands that plugins add to the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import typer

from sftplug.plugin.additions import is_command
from sftplug.testing.law import check_named, demand
from sftplug.testing.proofs import proving
from sftplug.types.command_names import COMMAND_NAMES


@proving
def check_command(name: str, run: Callable[..., Any], /) -> None:
    """Hold what ``sftplug_commands`` offers under a name, a function or a typer app, to its laws. Raises LawBroken."""
    check_named(f"command '{name}'", LAWS, Command(name, run))


@dataclass(frozen=True, slots=True)
class Command:
    """A command under its name."""

    name: str
    run: Callable[..., Any]

    def made(self) -> Any:
        """Return what typer makes of it."""
        if isinstance(self.run, typer.Typer):
            return typer.main.get_group(self.run)
        app = typer.Typer(add_completion=False)
        app.command(self.name)(self.run)
        return typer.main.get_command(app)

    def all(self) -> Iterator[tuple[str, Any]]:
        """Yield name and command of it, and of those in it."""
        made = self.made()
        yield self.name, made
        for name, inner in getattr(made, "commands", {}).items():
            yield f"{self.name} {name}", inner


def is_offered(command: Command) -> None:
    """It is a function or a typer app, under a name that can be typed and that no command of sftplug has."""
    demand(
        is_command(command.name, command.run),
        f"{command.name!r} is {command.run!r}",
        "offer a function or a `typer.Typer`, under letters, digits and `-`.",
    )
    demand(command.name not in COMMAND_NAMES, f"sftplug has a command '{command.name}'", "choose another name.")


def is_told(command: Command) -> None:
    """It says what it does: ``sftplug --help`` shows its first sentence."""
    for name, made in command.all():
        said = (made.help or made.short_help or "").strip()
        demand(bool(said), f"`sftplug {name} --help` would not say what it does", "write a docstring.")


def shows_its_help(command: Command) -> None:
    """``--help`` shows its arguments and does nothing: typer understands what they are annotated with."""
    for name, made in command.all():
        with redirect_stdout(StringIO()) as shown:
            made.main(args=["--help"], prog_name=f"sftplug {name}", standalone_mode=False)
        demand("Usage" in shown.getvalue(), f"`sftplug {name} --help` showed no usage", "leave `--help` to typer.")


LAWS = (is_offered, is_told, shows_its_help)
