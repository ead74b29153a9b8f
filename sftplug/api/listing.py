"""List the runs below a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from sftplug.errors import did_you_mean
from sftplug.types.listed_run import ListedRun, RunList

Sort = Literal["path", "state", "recipe", "model", "best", "tokens", "seconds", "bytes"]
SORTS: tuple[str, ...] = get_args(Sort)


def runs(folder: str | Path = ".", *, states: Iterable[str] = (), match: str = "", sort: str = "path") -> RunList:
    """Return the runs in and below a folder, with what could not be read; links are not followed.

    Of `states` those in one of them; with `match` those in whose path, recipe or model that text stands, in any case.
    `sort` is ``path``, ``state``, ``recipe``, ``model``, ``best`` (by name of the metric, the lowest value first),
    ``tokens``, ``seconds`` or ``bytes`` (the largest first). Raises RunError where there is no such folder, ValueError
    for another `sort`.
    """
    from sftplug.reporting.listing import list_runs

    if sort not in SORTS:
        raise ValueError(f"sort: {sort!r} is none of {', '.join(SORTS)}.{did_you_mean(sort, SORTS)}")
    found, wanted = list_runs(Path(folder)), frozenset(states)
    kept = [run for run in found.runs if (not wanted or run.state in wanted) and _matches(run, match)]
    return RunList(tuple(sorted(kept, key=_key(sort))), found.skipped)


def _matches(run: ListedRun, text: str) -> bool:
    return any(text.casefold() in str(said or "").casefold() for said in (run.path, run.recipe, run.model))


def _key(sort: str) -> Callable[[ListedRun], Any]:
    if sort in ("tokens", "seconds", "bytes"):
        return lambda run: (-getattr(run, sort), run.path)
    if sort == "best":
        return lambda run: (run.best is None, run.metric or "", run.best or 0.0, run.path)
    return lambda run: (getattr(run, sort) is None, str(getattr(run, sort)), run.path)
