"""The kind that takes a finished model to where it is used."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from sftplug.types.finished_model import FinishedModel


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
