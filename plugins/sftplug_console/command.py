"""``sftplug curve``"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import rich
import typer

import sftplug
from sftplug_console.curve import draw_curve

WIDTH = 60
"""Most columns of a chart."""


def curve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, under way or over.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What was measured: loss, eval_loss, learning_rate …")] = (
        "loss"
    ),
) -> None:
    """Show how the loss of RUN has fallen, or how another number has changed, while the run is under way too."""
    points = [entry for entry in sftplug.RunDirectory.open(run).metrics() if "step" in entry]
    values = {entry["step"]: entry[name] for entry in points if _is_number(entry.get(name))}
    if not values:
        known = sorted({key for entry in points for key, value in entry.items() if _is_number(value)} - {"step"})
        listed = f"Measured were: {', '.join(known)}." if known else "Nothing was measured yet."
        raise sftplug.RunError(f"{run} has no `{name}`.{sftplug.did_you_mean(name, known)} {listed}")
    console = rich.get_console()
    console.print(f"{name}, steps {min(values)} to {max(values)}; last {values[max(values)]:.4g}", highlight=False)
    for line in draw_curve([values[step] for step in sorted(values)], min(WIDTH, console.width - 10)):
        console.print(line, highlight=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
