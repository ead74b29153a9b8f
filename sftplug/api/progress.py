"""Show how far long stages are: bars on a terminal and in a notebook, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from sftplug.types.progress import Progress as Callback
from sftplug.types.progress import no_progress
from sftplug.util.notebook import NotebookBar
from sftplug.util.processes import is_main


@contextmanager
def show_progress() -> Iterator[Callback]:
    """Yield a callable that shows the progress of each stage it is told about."""
    console = rich.get_console()
    if not ((console.is_terminal or console.is_jupyter) and is_main()):
        yield no_progress
        return
    if console.is_jupyter:
        bar = NotebookBar()
        try:
            yield bar.show
        finally:
            bar.close()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def show(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show
