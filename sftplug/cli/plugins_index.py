"""``sftplug plugins search`` and ``sftplug plugins add``: the package index that pip is set up for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Annotated

import typer

from sftplug.cli.display import say, show
from sftplug.plugin.manager import DISTRIBUTION
from sftplug.util.text import visible


def search_plugins(
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORDS]…", help="All must stand in it.")] = None,
) -> None:
    """List the plugins on the package index: those whose name begins with sftplug-, and that say that they are one.

    The index is the one that pip is set up for; its list of all names is read, which is long on PyPI.
    """
    from rich.table import Table
    from rich.text import Text

    from sftplug.api.plugins import search_plugins as search
    from sftplug.types.kind_names import PREFIX

    found = search(*(words or []))
    if not found:
        say(f"no plugin whose name begins with {PREFIX} is found{' with these words' if words else ''}.")
        return
    here = distribution(DISTRIBUTION).version
    table = Table("package", "version", "what it is for", "installed", "for sftplug")
    for plugin in found:
        fit = f"{plugin.needs or 'any'}{'' if plugin.fits(here) else f', not {here}'}"
        cells = (plugin.name, plugin.version, plugin.summary, _installed(plugin.name), fit)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    show(table)
    say("`sftplug plugins add PACKAGE` installs one: its code runs in every command from then on.")


def _installed(name: str) -> str:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""


def add_plugin(
    name: Annotated[str, typer.Argument(metavar="PACKAGE", help="As pip takes it: sftplug-acme, sftplug-acme==1.2.")],
) -> None:
    """Install a plugin with pip into the environment of this command, and show what it offers.

    This version of sftplug stays: a plugin that needs another is refused by pip.
    """
    from sftplug.api.plugins import add_plugin as add

    offered = add(name)
    for plugin in offered:  # in a new process: in this one, modules of a version before may be loaded
        shown = subprocess.run([sys.executable, "-m", "sftplug", "plugins", "show", plugin], check=False)
        if shown.returncode:
            raise typer.Exit(shown.returncode)
