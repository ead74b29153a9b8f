"""Paths in the record of a run: relative to it where a project lies together, so that it can be moved as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

PLACES = "places.json"
"""In the record: path as the recipe there has it -> where that was when the run began."""


def relative_to_record(path: str, record: Path, project: Path) -> str:
    """Return `path` as the recipe in the folder `record` names it: relative where both lie in the folder `project`."""
    if not Path(path).is_absolute() or not all(_is_below(item, project) for item in (Path(path), record)):
        return path
    found = os.path.relpath(path, record.absolute().resolve())
    return found if found.startswith(".") else f"./{found}"


def _is_below(path: Path, folder: Path) -> bool:
    return folder.absolute().resolve() in path.absolute().resolve().parents


def as_it_was(record: Path, text: str) -> Path | None:
    """Return where a relative path in the record in `record` was when the run began, if that is still there."""
    try:
        known = json.loads((record / PLACES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # no record, or one from before
    was = known.get(text) if isinstance(known, Mapping) else None
    return Path(was) if isinstance(was, str) and Path(was).exists() else None


def is_record(file: Path) -> bool:
    """Whether a recipe is the one that a run has recorded: everything that it leaves open is filled in."""
    return file.name == "recipe.yaml" and (file.parent / "run.json").is_file()
