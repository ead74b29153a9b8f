"""A bar of progress in a notebook, by what every notebook has: a display that can be updated."""

from __future__ import annotations

import time
from html import escape
from typing import Any

SECONDS = 0.2
"""A bar that moves more often than that costs more than it tells."""


class NotebookBar:
    """One line below the cell, updated in place; it needs IPython alone, without which there is no notebook."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._handle: Any = None
        self._at = 0.0

    def show(self, stage: str, done: int, total: int | None) -> None:
        """Show `stage` beside a bar of which `done` of `total` is full; of an unknown total, one that only moves."""
        now = time.monotonic()
        if self._handle is not None and now - self._at < SECONDS and done != total:
            return
        self._at = now
        value = "" if total is None else f' value="{done}" max="{max(total, 1)}"'
        count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
        self._display(f"<progress{value}></progress> {count} {escape(stage)}")

    def close(self) -> None:
        """Take the bar away."""
        if self._handle is not None:
            self._display("")
            self._handle = None

    def _display(self, html: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))
