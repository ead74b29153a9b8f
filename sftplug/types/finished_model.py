"""What a run has trained, as an exporter gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe


@dataclass(frozen=True, slots=True)
class FinishedModel:
    """The model of a finished run, on disk."""

    folder: Path
    """The run's folder."""
    files: tuple[str, ...]
    """Names of the files in it that may leave: model or adapter, tokenizer, configurations, card. The record of the
    run, which names paths and quotes rows, is not among them."""
    is_adapter: bool
    """Whether it is an adapter, which is loaded onto its base, and not a whole model."""
    recipe: Recipe
    """What it was trained with."""
    _merge: Callable[[], Path] = field(repr=False)

    def merged(self) -> Path:
        """Return a folder with the model, tokenizer and card such that no adapter is needed.

        That of the run where whole weights were trained. Else its adapter is merged, as `sftplug merge` does it: loaded
        again, and compared with the adapter. The folder is gone when the export is over. An exporter that asks for it
        says so in ``needs_merged``. Raises ModelError where the adapter cannot be merged.
        """
        return self._merge() if self.is_adapter else self.folder
