"""What is going on when plugins are told of a moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MomentContext:
    """What is going on when a plugin is told of a moment."""

    command: str = ""
    """What is done, by the name of its command, from Python too: ``train``, ``check``, ``eval``, ``merge`` …"""
    run: str | None = None
    """The id of the run, as its ``run.json`` has it from beginning to end; None where no run has begun."""
    resumed: bool = False
    """Whether the training goes on from a checkpoint."""
    folder: Path | None = None
    """The folder of the run; None where no run has begun."""
