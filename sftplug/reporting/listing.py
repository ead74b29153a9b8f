"""The runs below a folder, in a line each. Links are not followed, and what cannot be read is left out and named."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftplug.errors import RunError
from sftplug.reporting.collect import is_number
from sftplug.run import RunDirectory
from sftplug.types.listed_run import ListedRun, RunList
from sftplug.util.redact import redact, without_secrets

Tell = Callable[[str], object]
READ = ("run.json", "recipe.yaml", "origins.json", "metrics.jsonl")
_FILE_AND_LINE = re.compile(r"(?P<file>.+):\d+")


def list_runs(folder: Path) -> RunList:
    """Return the runs in and below `folder`, by path. Raises RunError where there is no such folder."""
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder: name one that holds runs.")
    skipped = list[str]()
    found = [run for path in _folders(folder, skipped.append) if (run := _listed(path, skipped.append)) is not None]
    return RunList(tuple(sorted(found, key=lambda run: run.path)), tuple(map(redact, skipped)))


def _folders(folder: Path, tell: Tell) -> Iterator[Path]:
    """Yield the folders that hold a run; what lies within a run is its own."""
    for place, inner, files in os.walk(folder, onerror=lambda error: tell(f"{error.filename}: {error.strerror}.")):
        path = Path(place)
        if "run.json" in files:
            inner.clear()
            yield path
        for name in inner:
            if (path / name).is_symlink():
                tell(f"{path / name} is a link to a folder, which is not followed.")


def _listed(path: Path, tell: Tell) -> ListedRun | None:
    """Return the run of a folder; None, and why is told, if its run.json is none."""
    # A link would be read elsewhere, and a pipe never ends.
    odd = [name for name in READ if os.path.lexists(path / name) and not _is_plain(path / name)]
    for name in odd:
        tell(f"{path / name} is not a plain file, and is not read.")
    if "run.json" in odd:
        return None
    directory = RunDirectory(path)
    try:
        state = RunDirectory.open(path).state()
    except (RunError, TypeError, OSError, RecursionError) as error:  # TypeError: of one that lacks something
        tell(f"{path} is left out: {error}")
        return None
    recipe = {} if "recipe.yaml" in odd else _have(directory.recipe, path / "recipe.yaml", tell)
    origins = {} if "origins.json" in odd else _have(directory.origins, path / "origins.json", tell)
    metrics = [] if "metrics.jsonl" in odd else _metrics(directory, tell)
    name, best = _best(recipe, metrics)
    return ListedRun(
        path,
        redact(str(state.state)),
        _recipe_name(origins),
        _model_name(recipe),
        name if best else None,
        best[1] if best else None,
        best[0] if best else None,
        # Between two checkpoints the measurements are ahead of what the run says of itself.
        int(max(_number(state.tokens), *_values(metrics, "num_tokens"), 0.0)),
        max(_number(state.seconds), *_values(metrics, "seconds"), 0.0),
        _bytes(path, tell),
    )


def _is_plain(file: Path) -> bool:
    return stat.S_ISREG(file.lstat().st_mode)


def _have(read: Callable[[], dict[str, Any]], file: Path, tell: Tell) -> dict[str, Any]:
    """Return what a file of the run holds; nothing, and why is told, where that is not what a run writes."""
    try:
        return read()
    except RunError as error:
        tell(str(error))  # which names the file
    except (TypeError, ValueError, RecursionError):
        tell(f"{file} does not hold what a run writes there, and is not read.")
    return {}


def _metrics(directory: RunDirectory, tell: Tell) -> list[dict[str, Any]]:
    try:
        return list(directory.metrics(tell))
    except (OSError, RecursionError) as error:
        tell(f"{directory.path / 'metrics.jsonl'} cannot be read: {error}")
        return []


def _best(recipe: Mapping[str, Any], metrics: list[dict[str, Any]]) -> tuple[str, tuple[int, float] | None]:
    """Return the metric by which the recipe chooses, and the step and value that are best by it."""
    train = _section(recipe, "train")
    name = str(train.get("metric_for_best_model") or "eval_loss")
    name = name if name.startswith("eval_") else f"eval_{name}"
    found = [(entry.get("step"), entry.get(name)) for entry in metrics]
    points = [(int(step), float(value)) for step, value in found if is_number(step) and is_number(value)]
    said = train.get("greater_is_better")
    greater = said if isinstance(said, bool) else not name.endswith("loss")  # as transformers has it
    choose = max if greater else min
    return redact(name), choose(points, key=lambda point: point[1]) if points else None


def _recipe_name(origins: Mapping[str, Any]) -> str | None:
    """Return the file of the first value that stands in the recipe itself, and in none that it extends."""
    found = (_FILE_AND_LINE.fullmatch(origin) for origin in origins.values() if isinstance(origin, str))
    return next((redact(Path(match["file"]).name) for match in found if match), None)


def _model_name(recipe: Mapping[str, Any]) -> str | None:
    model = recipe.get("model")
    if not isinstance(model, Mapping):
        return redact(model) if isinstance(model, str) else None
    name = model.get("name_or_path") or _section(model, "build").get("type")
    return None if name is None else redact(str(without_secrets(name)))


def _section(known: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = known.get(name)
    return section if isinstance(section, Mapping) else {}


def _values(metrics: list[dict[str, Any]], name: str) -> Iterator[float]:
    return (_number(entry.get(name)) for entry in metrics)


def _number(value: object) -> float:
    return float(value) if is_number(value) else 0.0


def _bytes(path: Path, tell: Tell) -> int:
    """Return the sizes of the files of a run, each file once."""
    sizes = dict[tuple[int, int], int]()
    for place, _, files in os.walk(path, onerror=lambda error: tell(f"{error.filename}: {error.strerror}.")):
        for name in files:
            try:
                known = (Path(place) / name).lstat()
            except OSError:  # a running run deletes its checkpoints
                continue
            if stat.S_ISREG(known.st_mode):
                sizes[known.st_dev, known.st_ino] = known.st_size
    return sum(sizes.values())
