"""Read the folder of a run for a report; what it does not hold yet is left out, and why is said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from sftplug.errors import RunError
from sftplug.run import RunDirectory, RunState

if TYPE_CHECKING:
    from sftplug.previewing import PreviewRow

NOTHING = "—"
"""Stands where there is nothing."""
Points = list[tuple[float, float]]
"""(step, value), in the order of the steps."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one run."""

    name: str
    path: Path
    state: RunState
    metrics: tuple[dict[str, Any], ...]
    samples: tuple[dict[str, Any], ...]
    recipe: dict[str, Any]
    origins: dict[str, str]
    plugins: list[dict[str, Any]]
    ledger: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]
    exports: dict[str, Any]
    missing: tuple[str, ...]
    """A sentence for each file that the folder does not hold, and for each line that is damaged."""
    rows: tuple[PreviewRow, ...] = field(default=())
    """Training rows, drawn as they were trained."""
    rows_note: str = ""
    """Why there are no rows."""

    def points(self, name: str) -> Points:
        """Return the finite values of one measurement."""
        found = ((entry.get("step"), entry.get(name)) for entry in self.metrics)
        return [(float(step), float(value)) for step, value in found if is_number(step) and is_number(value)]

    def speed(self) -> Points:
        """Return tokens a second between two logs; evaluations, which log their own end, are left out."""
        points: Points = []
        seconds = tokens = 0.0
        for entry in self.metrics:
            now, count, step = entry.get("seconds"), entry.get("num_tokens"), entry.get("step")
            if is_number(now) and is_number(count) and is_number(step) and count > tokens and now > seconds:
                points.append((float(step), (count - tokens) / (now - seconds)))
            seconds = float(now) if is_number(now) else seconds
            tokens = max(tokens, float(count)) if is_number(count) else tokens
        return points

    def last(self, name: str) -> float | None:
        """Return the last value of a measurement."""
        points = self.points(name)
        return points[-1][1] if points else None


@dataclass(frozen=True, slots=True)
class Found:
    """The runs among what was named."""

    runs: tuple[Path, ...]
    skipped: tuple[str, ...]
    """A sentence for each folder or file that is not a run, or is one of `runs` once more."""


def find_runs(paths: Sequence[Path]) -> Found:
    """Return the runs among `paths`, each once; in place of a folder that is none, those directly in it.

    Raises RunError when there is none at all, and for a path where nothing is.
    """
    runs, skipped = list[Path](), list[str]()
    for path in paths:
        if not path.exists():
            raise RunError(f"{path} is not a folder of a run: there is nothing of that name.")
        if (why := _why_none(path)) is None:
            runs.append(path)
            continue
        inner = {inside: _why_none(inside) for inside in sorted(path.iterdir())} if path.is_dir() else {}
        inside = [folder for folder, fault in inner.items() if fault is None]
        runs += inside
        # In a folder of runs, whatever else lies there; a folder without any is itself what was meant to be one.
        skipped += [fault for fault in inner.values() if fault is not None] if inside else [why]
    if not runs:
        raise RunError("\n".join(skipped))
    return Found(*_once(runs, skipped))


def _once(runs: Sequence[Path], skipped: Sequence[str]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the runs without links to one of them (`latest`) and what is named twice, and why they are left out."""
    true = dict[Path, Path]()
    # False sorts before True: a folder comes before the links to it, and is what stays.
    for path in sorted(runs, key=Path.is_symlink):
        true.setdefault(path.resolve(), path)
    kept = [path for path in dict.fromkeys(runs) if true[path.resolve()] == path]
    again = dict.fromkeys(path for path in runs if true[path.resolve()] != path)
    return tuple(kept), (*skipped, *(f"{path} is the run {true[path.resolve()]}, which is shown." for path in again))


def _why_none(path: Path) -> str | None:
    """Return why there is no run at `path`; None if there is."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link that leads nowhere."
    try:
        RunDirectory.open(path).state()
    except RunError as error:
        return str(error)
    except TypeError as error:  # of a run.json that lacks something
        return f"{path} is not a folder of a run: {error}."
    return None


def collect(paths: Sequence[Path]) -> list[Report]:
    """Return what the folders hold of their runs. Raises RunError naming a folder that holds none."""
    return [_collect(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names; where two have the same name, the paths as given."""
    short = [path.resolve().name for path in paths]
    return [name if short.count(name) == 1 else str(path) for path, name in zip(paths, short, strict=True)]


def _collect(path: Path, name: str) -> Report:
    directory, missing = RunDirectory.open(path), list[str]()

    def have(read: Callable[[], Kind], empty: Kind) -> Kind:
        try:
            return read()
        except RunError as error:
            missing.append(str(error))
            return empty

    return Report(
        name,
        path,
        directory.state(),
        tuple(directory.metrics(missing.append)),
        tuple(directory.samples(missing.append)),
        have(directory.recipe, {}),
        have(directory.origins, {}),
        have(directory.plugins, []),
        have(directory.ledger, {}),
        have(directory.data, {}),
        have(directory.environment, {}),
        have(directory.exports, {}),
        tuple(missing),
    )


Kind = TypeVar("Kind")


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flat(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return dotted path -> value as JSON, of everything that a recorded recipe says."""
    from sftplug.recipe.yaml import dotted, leaves

    return {dotted(path): json.dumps(value, ensure_ascii=False, default=str) for path, value in leaves(recipe)}


def differing(reports: Sequence[Report]) -> list[tuple[str, list[str]]]:
    """Return path and value in each run (`NOTHING` for none) of every recipe value that is not the same in all runs."""
    recipes = [flat(report.recipe) for report in reports]
    paths = [path for path in dict.fromkeys(path for recipe in recipes for path in recipe) if path != "output"]
    rows = [(path, [recipe.get(path, NOTHING) for recipe in recipes]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]
