"""What a run writes into its folder, by name: nothing else in it is ever deleted with the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import yaml

from sftplug.recipe.given import KEPT
from sftplug.recipe.places import PLACES
from sftplug.run import checkpoints
from sftplug.storage.files import write_json
from sftplug.storage.lock import LOCK, OWNER
from sftplug.storage.writable import is_probe

EXPORTED = "exports.json"
WRITTEN = "written.json"
"""The names that only the libraries know: of the result's and the tokenizer's files."""
RECORD = frozenset(
    {
        "run.json",
        "result.json",
        "recipe.yaml",
        "origins.json",
        PLACES,
        "plugins.json",
        "environment.json",
        "data.json",
        "ledger.json",
        "accelerate.yaml",
        "metrics.jsonl",
        "samples.jsonl",
        "journal.jsonl",
        EXPORTED,
        WRITTEN,
    }
)
"""The record of a run: it names paths and quotes rows, and is never published. The card tells what may be told."""
COPIES, EVENTS = "plugins", "tensorboard"
_RESULT = (
    "README.md",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "sftplug_adapter.json",
    "adapter.safetensors",
    "adapter_model.safetensors",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "training_args.bin",
)
"""What nearly every result is made of: it is known where a run was killed before it could write down more."""


@contextmanager
def noting(folder: Path) -> Iterator[None]:
    """Write down which files appear in `folder` meanwhile."""
    before = set(_files(folder))
    try:
        yield
    finally:
        new = [str(file) for file in _files(folder) if file not in before and not _is_known(folder, file)]
        if new:
            write_json(folder / WRITTEN, {"files": sorted({*_noted(folder), *new})})


def strangers(folder: Path) -> list[str]:
    """Return the names, relative to `folder`, of what is in it and was not written by its run."""
    noted = _noted(folder)
    return [str(file) for file in _files(folder) if not _is_known(folder, file) and str(file) not in noted]


def _noted(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / WRITTEN).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # of an older version, or killed before it was written


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file, link and empty folder, relative to `folder`."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.relative_to(folder)


def _is_known(folder: Path, file: Path) -> bool:
    first, *rest = file.parts
    if first.startswith("checkpoint-") and first.removeprefix("checkpoint-").isdigit():
        return not rest or checkpoints.holds(folder / first, Path(*rest))
    if first == COPIES:
        return not rest or file.name in _copies(folder) or "__pycache__" in rest
    if first == EVENTS:
        return not rest or file.name.startswith("events.out.tfevents.")
    if rest:
        return False
    if first in RECORD or first in (LOCK, OWNER, KEPT) or is_probe(first):
        return True
    # What `atomic_write` leaves of a file when it is killed.
    unfinished = first.startswith(".") and first.endswith(".new")
    name = first[1:].removesuffix(".new") if unfinished else first
    return name in RECORD or name == KEPT or any(fnmatch(name, pattern) for pattern in _RESULT)


def _copies(folder: Path) -> set[str]:
    """Return the names of the plugin files that the run copied."""
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        return {Path(str(name)).name for name in recipe["plugins"]}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return set()
