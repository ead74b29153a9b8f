"""Calls of an exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftplug.plugin.calls.check import checked
from sftplug.plugin.errors import plugin_error, plugin_errors

if TYPE_CHECKING:
    from pathlib import Path

    from sftplug.plugin.components import Exporter
    from sftplug.types.finished_model import FinishedModel


def needs_merged(exporter: Exporter) -> bool:
    """Whether an exporter asks for a model without adapter. Raises PluginError for anything but True and False."""
    with plugin_errors(exporter, "needs_merged"):
        answer: object = exporter.needs_merged
    return bool(checked(exporter, "needs_merged", answer, bool, "True or False"))


def export(exporter: Exporter, model: FinishedModel, target: Path) -> None:
    """Let an exporter write a model to `target`. Raises PluginError when there is nothing afterwards."""
    with plugin_errors(exporter, "export"):
        exporter.export(model, target)
    if exporter.suffix and not target.is_file():
        raise plugin_error(exporter, "export", f"must write the file that it is given, {target.name}")
    if not exporter.suffix and not any(target.iterdir()):
        raise plugin_error(exporter, "export", "must write something to the folder that it is given")
