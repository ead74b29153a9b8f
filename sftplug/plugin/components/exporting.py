"""The kind that takes a finished model to where it is used."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sftplug.types.finished_model import FinishedModel
    from sftplug.types.served_model import ServedModel


class Exporter(Component):
    """Writes a finished model in the form in which another program takes it."""

    suffix: ClassVar[str] = ""
    """The end of the name of the file that it writes, such as ``.zip``; empty where it writes a folder."""

    @property
    def needs_merged(self) -> bool:
        """Whether it asks for `FinishedModel.merged`; then `sftplug check` says what cannot be merged."""
        return False

    @abstractmethod
    def export(self, model: FinishedModel, target: Path) -> None:
        """Write `model` to `target`: an empty folder that is there, or a file that is not, where there is a `suffix`.

        What is written counts when the method returns; where it raises, nothing of it is kept. Nothing in the run's
        folder is changed. Raises ModelError for a model that the form cannot hold.
        """

    def check_config(self, config: PretrainedConfig) -> Iterable[str]:
        """Yield a sentence for everything in a model's configuration for which it cannot be written in this form.

        Asked before a run whose recipe names this exporter under ``export``: hours later it would be too late.
        """
        return ()

    def served(self, target: Path, model: FinishedModel) -> Iterator[ServedModel]:
        """Yield what was written to `target` as each program reads it that will run it and is there, one at a time.

        sftplug compares it with the trained model on held-out rows: the ids of a prompt must be the same, and the
        logits no further apart than `tolerance`; else nothing of the export is kept. A program that is not installed is
        left aside. By default there is none, and nothing is compared.
        """
        yield from ()

    @property
    def tolerance(self) -> float | None:
        """Return how far logits may be apart: their mean difference as a share of their standard deviation.

        None, the default, for what a merge may be (0.02, and 0.05 in bf16): a form that keeps the weights as they are.
        One that rounds them says more.
        """
        return None
