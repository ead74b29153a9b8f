"""The runs below a folder, in a line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ListedRun:
    """What a run came to, as far as its folder tells; None stands for what it does not."""

    path: Path
    """Its folder."""
    state: str
    """``finished``, ``failed``, ``interrupted``, or ``running``, which a killed run says too."""
    recipe: str | None
    """Name of the recipe's file."""
    model: str | None
    """The model that it began with; of one that a recipe builds, the kind of what builds it."""
    metric: str | None
    """Name of what `best` is: that of ``train.metric_for_best_model``, else ``eval_loss``."""
    best: float | None
    """The best value of that metric."""
    step: int | None
    """The step of `best`."""
    tokens: int
    """Tokens that went through the model in training, padding left out."""
    seconds: float
    """Time in the training loop, over all attempts."""
    bytes: int
    """Sizes of all files in the folder; what a link leads to is not counted."""


@dataclass(frozen=True, slots=True)
class RunList:
    """Runs, and what was not read."""

    runs: tuple[ListedRun, ...]
    skipped: tuple[str, ...]
    """A sentence for each folder, link or file that could not be read, or was left out."""

    def to_dict(self) -> dict[str, Any]:
        """Return both as plain data."""
        return {"runs": [{**asdict(run), "path": str(run.path)} for run in self.runs], "skipped": list(self.skipped)}
