"""Write a finished model in the form in which another program takes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.plugin.calls import export as call_exporter
from sftplug.plugin.calls import needs_merged
from sftplug.plugin.errors import plugin_error
from sftplug.run.files import noting
from sftplug.run.result import is_adapter
from sftplug.ship.push import model_files
from sftplug.storage.folder import atomic_file, atomic_folder
from sftplug.types.finished_model import FinishedModel

if TYPE_CHECKING:
    from sftplug.plugin.components import Exporter
    from sftplug.recipe.model import Recipe

EXPORTS = "exports"
"""The folder in that of a run where exports are written if nothing else is said."""


def place_of(exporter: Exporter, run: Path) -> Path:
    """Return where an exporter writes if nothing else is said: ``RUN/exports/zip.zip``, ``RUN/exports/folder``."""
    return run / EXPORTS / f"{exporter.type}{exporter.suffix}"


def export(exporter: Exporter, run: Path, recipe: Recipe, output: Path, merge: Callable[[], Path]) -> Path:
    """Write the model of the finished run in the folder `run` to `output`, whole or not at all, and return `output`.

    `merge` returns a folder with the merged model. Raises RunError where something is at `output` already, PluginError
    and ModelError for an exporter that fails.
    """
    merging = merge if needs_merged(exporter) else _refuse_to_merge(exporter)
    model = FinishedModel(run, tuple(model_files(run)), is_adapter(run), recipe, merging)
    is_inside = run.resolve() in output.resolve().parents
    atomic = atomic_file if exporter.suffix else atomic_folder
    # What is noted is known for the run's own by `train --overwrite`.
    with noting(run) if is_inside else nullcontext(), atomic(output) as target:
        call_exporter(exporter, model, target)
    return output


def _refuse_to_merge(exporter: Exporter) -> Callable[[], Path]:
    def refuse() -> Path:
        text = "asks for the merged model, and `needs_merged` is False: what cannot be merged would be found too late"
        raise plugin_error(exporter, "export", text)

    return refuse
