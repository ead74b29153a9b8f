"""Arguments and steps that the commands on a finished run share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug.cli.options import tell, warn

if TYPE_CHECKING:
    from sftplug.api.result import OpenRun

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="Measure on these rows in place of the run's held-out ones."),
]
Format = Annotated[str | None, typer.Option("--format", metavar="NAME", help="Format of the rows in --data.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_run(run: Path, no_plugin: list[str] | None = None) -> OpenRun:
    """Return a finished run, whose rows may be gone, without the plugins that are not to be loaded."""
    from sftplug.api.result import OpenRun
    from sftplug.run.left_out import load_finished, says
    from sftplug.ship.tuned import open_finished

    directory = open_finished(run)
    loaded, left_out = load_finished(directory, without=tuple(no_plugin or ()))
    warn([*loaded.warnings(), *map(says, left_out)])
    tell(loaded.told())
    return OpenRun(directory.path, loaded, left_out)


def read_format(data: str | None, format: str | None) -> object:
    """Return the format of the user's rows. Raises BadParameter where one of both is given alone."""
    if (data is None) != (format is None):
        raise typer.BadParameter("--data and --format go together.")
    return _format(format)


def _format(text: str | None) -> object:
    from sftplug.recipe.yaml import parse_yaml

    return parse_yaml(text or "", name="--format", base=Path.cwd()).data
