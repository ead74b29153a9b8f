"""Which files of this machine a recipe reads, so that no run deletes them, or writes among them."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.data.store import is_input_path
from sftplug.errors import RunError
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe


def refuse_among_inputs(recipe: Recipe, output: Path) -> None:
    """Raise RunError where the run would write to what it reads, or a later start would read what it wrote."""
    here = output.absolute().resolve()
    for where, path in _inputs(recipe):
        if path.resolve() == here:
            raise RunError(f"the output folder {output} is what `{where}` reads. {_elsewhere()}")
        if where.startswith("data") and _would_read(path, here):
            raise RunError(
                f"the output folder {output} lies in what `{where}` reads ({path}): what the run writes there would be "
                f"read as rows. {_elsewhere()}"
            )


def refuse_to_delete(recipe: Recipe, output: Path) -> None:
    """Raise RunError where something that the recipe reads lies in the folder that is to be deleted."""
    here = output.absolute().resolve()
    for where, path in _inputs(recipe):
        if here in (path.resolve(), *path.resolve().parents):
            raise RunError(
                f"`{where}` reads {path}, which lies in {output}: with {argument('--overwrite')} it would be deleted "
                f"before it is read. {_elsewhere()}"
            )


def _elsewhere() -> str:
    return f"Choose another {argument('--output')}."


def _inputs(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Yield place in the recipe and path of everything local that it reads; a pattern as it is written."""
    if (name := recipe.model.name_or_path) is not None and Path(name).is_absolute():
        yield "model", Path(name)
    if recipe.model.adapter is not None:
        yield "model.adapter", Path(recipe.model.adapter)
    for where, component in recipe.components():
        for name, field in type(component).model_fields.items():
            value = getattr(component, name)
            if isinstance(value, str) and "://" not in value and is_input_path(field.annotation, field.metadata):
                yield where, Path(value)


def _would_read(source: Path, here: Path) -> bool:
    """Whether a source, which may be a folder or a pattern, stands for files of a run in `here` as well."""
    if source.is_dir():
        return source.resolve() in here.parents
    pattern = str(source)
    # A file by its name is looked at by `refuse_among_inputs` itself.
    if not any(letter in pattern for letter in "*?["):
        return False
    matches = fnmatch if "**" in pattern else _by_part
    return any(matches(str(here / name), pattern) for name in ("metrics.jsonl", "samples.jsonl", "run.json"))


def _by_part(name: str, pattern: str) -> bool:
    return Path(name).match(pattern) if Path(pattern).is_absolute() else fnmatch(name, pattern)
