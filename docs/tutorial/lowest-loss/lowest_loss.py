from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from sftplug import RunDirectory, hookimpl


def lowest(runs: list[Path]) -> None:
    """Show the lowest loss of each of RUNS, the best run first."""
    logged = {run: [line["loss"] for line in RunDirectory.open(run).metrics() if "loss" in line] for run in runs}
    for run in sorted(logged, key=lambda run: min(logged[run], default=float("inf"))):
        typer.echo(f"{min(logged[run], default=float('inf')):.4f}  {run}")


@hookimpl
def sftplug_commands() -> Mapping[str, Callable[..., Any]]:
    return {"lowest-loss": lowest}
