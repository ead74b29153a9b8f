"""Calls of an exporter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from sftplug.plugin.calls.check import checked, sentences
from sftplug.plugin.errors import plugin_error, plugin_errors
from sftplug.types.served_model import ServedModel

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig

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


def config_problems(exporter: Exporter, config: PretrainedConfig) -> list[str]:
    """Return why a model of this configuration cannot be exported. Raises PluginError for anything but sentences."""
    with plugin_errors(exporter, "check_config"):
        return sentences(exporter, "check_config", exporter.check_config(config))


def compares(exporter: Exporter) -> bool:
    """Whether an exporter may say how its form is read, so that it can be compared with the trained model."""
    from sftplug.plugin.components import Exporter

    return type(exporter).served is not Exporter.served


def served(exporter: Exporter, target: Path, model: FinishedModel) -> Iterator[ServedModel]:
    """Yield what an exporter wrote as each program reads it; it is closed before the next one comes."""
    with plugin_errors(exporter, "served"):
        engines = iter(exporter.served(target, model))
    while True:
        with plugin_errors(exporter, "served"):
            answer: object = next(engines, None)
        if answer is None:
            return
        engine = checked(exporter, "served", answer, ServedModel, "ServedModel objects")
        with closing(engine):
            yield engine


def tolerance(exporter: Exporter, default: float) -> float:
    """Return how far the logits of an export may be apart. Raises PluginError for anything but a number and None."""
    with plugin_errors(exporter, "tolerance"):
        answer: object = exporter.tolerance
    if answer is None:
        return default
    return float(checked(exporter, "tolerance", answer, float, "a number, or None"))
