"""A curve in text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"


def draw_curve(values: Sequence[float], width: int = 60, height: int = 8) -> list[str]:
    """Return the lines of a chart of `values`, the highest first, with the largest and smallest value as labels."""
    points = _shrink(values, max(width, 1))
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    eighths = [round((value - low) / span * (height * 8 - 1)) + 1 for value in points]
    rows = ["".join(_BLOCKS[min(max(level - 8 * row, 0), 8)] for level in eighths) for row in range(height)]
    labels = {height - 1: f"{high:8.3f}", 0: f"{low:8.3f}"}
    return [f"{labels.get(row, ''):>8} │{rows[row]}" for row in reversed(range(height))]


def _shrink(values: Sequence[float], width: int) -> list[float]:
    """Return at most `width` values: the means of neighbours."""
    if len(values) <= width:
        return list(values)
    bounds = [round(index * len(values) / width) for index in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
