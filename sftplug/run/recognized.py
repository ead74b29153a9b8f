"""What the rows of a run were found to be when it began: resumed, it keeps that, whatever is installed now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import RunError
from sftplug.recipe.origins import is_in
from sftplug.recipe.recognize import FROM_ROWS, Found
from sftplug.recipe.upgrade import upgrade_options
from sftplug.recipe.yaml import Path_, Tree
from sftplug.run import checkpoints
from sftplug.run.directory import RunDirectory

if TYPE_CHECKING:
    from sftplug.plugin.registry import Registry
    from sftplug.recipe.model import Recipe, SourceSection


_LEFT_OUT = (FROM_ROWS, "default")
"""Where a format came from that the recipe left out; in the first versions, `messages` was the default."""


def begun_with_formats(output: str, recipe: Recipe, registry: Registry) -> list[Found]:
    """Return the formats that the run in the folder `output` read from its rows; none where it has no checkpoint.

    The rows themselves are compared with those of the run when it is resumed, and so are their sources.
    """
    directory = RunDirectory(Path(output))
    with suppress(RunError):  # no run, or one that did not come so far: there is nothing to keep
        if checkpoints.folders(directory.path):
            then = directory.recipe()
            upgrade_options(Tree(then), registry, directory.versions())
            return list(_formats(then["data"], recipe, directory))
    return []


def _formats(then: Mapping[str, Any], recipe: Recipe, directory: RunDirectory) -> Iterator[Found]:
    origins = directory.origins()
    for split in ("train", "eval"):
        sections: tuple[SourceSection, ...] = getattr(recipe.data, split)
        for index, (section, before) in enumerate(zip(sections, then[split], strict=False)):
            place = f"data.{split}[{index}].format"
            read = [path for path, origin in origins.items() if origin in _LEFT_OUT and is_in(path, place)]
            written = {name: value for name, value in before["format"].items() if _is_among(f"{place}.{name}", read)}
            if "type" in written and section.source.type == before["source"]["type"]:
                path: Path_ = ("data", split, index, "format")
                yield Found(path, section, written, f"as the run in {directory.path} was begun")


def _is_among(path: str, read: list[str]) -> bool:
    return any(is_in(name, path) for name in read)
