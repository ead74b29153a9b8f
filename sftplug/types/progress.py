"""How a long stage tells how far it is; who shows it, and whether anyone does, is not its business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by a long stage."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """`stage` has done `done` items of `total`, or of an unknown number when it is None."""


def no_progress(stage: str, done: int, total: int | None) -> None:
    """Show nothing."""
