"""Curves as inline SVG: axes, ticks, a line a run; a value on hover is the picture's own title, without a script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftplug.util.html import text

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 40
COLOURS = 8
"""How many colours there are; further runs are dashed."""
MOST_POINTS = 600
"""How many points of a line are drawn."""
STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); background: var(--card); border-radius: 8px; padding: .8rem .9rem; }
figcaption { font-weight: 600; font-size: .95rem; margin: 0 0 .3rem .2rem; }
figcaption span { color: var(--pale); font-weight: 400; margin-left: .6rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--pale); font-variant-numeric: tabular-nums; }
.axis { stroke: var(--pale); stroke-width: 1; } .tick { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.mark { stroke: var(--card); stroke-width: 1.2; } .hover { fill: transparent; stroke: none; }
.hover:hover { fill: var(--ink); }
:root { --r0: #1f6fd6; --r1: #d9480f; --r2: #2b8a3e; --r3: #9c36b5; --r4: #b8860b; --r5: #0b7285; --r6: #c2255c;
  --r7: #5c636a; }
@media (prefers-color-scheme: dark) { :root { --r0: #6ea8fe; --r1: #ff922b; --r2: #69db7c; --r3: #da8ff0; --r4: #ffd43b;
  --r5: #3bc9db; --r6: #faa2c1; --r7: #adb5bd; } }
.chip { display: inline-block; width: .75em; height: .75em; border-radius: 3px; margin-right: .45em; }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one run."""

    name: str
    run: int
    """Number of the run, which gives the colour."""
    points: Sequence[tuple[float, float]]
    marks: bool = False
    """Draw the points as diamonds joined by a dashed line, as for evaluations, rather than as a line."""


def colour(run: int) -> str:
    """Return the colour of a run."""
    return f"var(--r{run % COLOURS})"


def chart(title: str, unit: str, curves: Sequence[Curve]) -> str:
    """Return a figure of curves over the steps; empty if there is nothing to draw."""
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return ""
    scale = _scale(drawn)
    pieces = [*_axes(scale), *(piece for curve in drawn for piece in _curve(curve, scale))]
    head = f"{text(title)}<span>{text(unit)}</span>" if unit else text(title)
    return (
        f'<figure><figcaption>{head}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{text(title)} over steps">{"".join(pieces)}</svg></figure>'
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a step and a value are in the picture."""

    steps: tuple[float, float]
    values: tuple[float, float]

    def x(self, step: float) -> float:
        """Return how far right a step is."""
        low, high = self.steps
        return LEFT + (step - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return how far down a value is."""
        low, high = self.values
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _scale(curves: Sequence[Curve]) -> Scale:
    steps = [step for curve in curves for step, _ in curve.points]
    values = [value for curve in curves for _, value in curve.points]
    low, high = min(values), max(values)
    # From zero, unless that would hide how the values differ.
    if 0 < low < 0.6 * high:
        low = 0.0
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(
        (min(steps), max(steps) if max(steps) > min(steps) else min(steps) + 1),
        (low if low == 0 else low - margin, high + margin),
    )


def _axes(scale: Scale) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(*scale.values):
        y = scale.y(value)
        yield f'<line class="tick" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
    for step in ticks(*scale.steps, whole=True):
        x = scale.x(step)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{short(step)}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text x="{right}" y="{HEIGHT - 5}" text-anchor="end">step</text>'


def _curve(curve: Curve, scale: Scale) -> Iterator[str]:
    points = thinned(curve.points, MOST_POINTS)
    path = " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in points)
    dash = "3 4" if curve.marks else "7 3" if curve.run >= COLOURS else "none"
    yield (
        f'<polyline class="line" data-run="{text(curve.name)}" data-points="{len(points)}" points="{path}" '
        f'style="stroke: {colour(curve.run)}; stroke-dasharray: {dash}"/>'
    )
    for step, value in points:
        about = f"<title>{text(f'{curve.name}, step {step:g}: {value:.6g}')}</title>"
        yield _point(curve, scale.x(step), scale.y(value), about, alone=len(points) == 1)


def _point(curve: Curve, x: float, y: float, about: str, *, alone: bool) -> str:
    """Return what stands at one value: a diamond, a dot, or what only the pointer finds."""
    fill = f'style="fill: {colour(curve.run)}"'
    if curve.marks:
        return f'<path class="mark" {fill} d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5-5.5 5.5-5.5-5.5z">{about}</path>'
    kind = f'class="mark" {fill}' if alone else 'class="hover"'
    return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4">{about}</circle>'


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Return at most `most` points: of each stretch its lowest and its highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    # Two points of each stretch, and the first and the last of all: of 100 points, `most` = 10 leaves 4 stretches, 10
    # points.
    size, kept = math.ceil(len(points) / (most // 2 - 1)), [points[0]]
    for start in range(1, len(points) - 1, size):
        stretch = range(start, min(start + size, len(points) - 1))
        # A set, for in a flat stretch one point is both.
        ends = {min(stretch, key=lambda at: points[at][1]), max(stretch, key=lambda at: points[at][1])}
        kept += [points[at] for at in sorted(ends)]
    return [*kept, points[-1]]


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return round numbers from `low` to `high`, about six of them."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    step = max(1.0, round(step)) if whole else step
    # 0.3 / 0.1 is 2.9999999999999996, and there is a tick at 0.3.
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Return a number in few characters: ``0.25``, ``12k``, ``5e-5``."""
    size = abs(value)
    # "k" begins at ten thousand: 9999 is no longer than 9.999k.
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    return f"{value:.4g}" if size >= 1e-3 or value == 0 else f"{value:.2g}".replace("e-0", "e-")
