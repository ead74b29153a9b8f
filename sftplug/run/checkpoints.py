"""Checkpoints that are whole: sealed with a list of their files, written last, and used only if it is true.

The trainer writes a checkpoint file by file into ``checkpoint-STEP``. Whatever stops it on the way leaves a folder
without a seal, which no run resumes from. The seal names every file with its size and hash, so a file that was lost or
damaged later is noticed too: the libraries beneath go on without an optimizer, scheduler or random state, silently
different.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftplug.errors import RunError
from sftplug.storage.files import count_lines, sha256, sync, write_json

SEAL = "sealed.json"
GROWING = ("metrics.jsonl", "samples.jsonl")
"""Files of a run that grow a line at a time."""
PROGRESS = "progress.json"
"""What the trainer counts and does not save itself; further processes have files of their own."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose seal is true."""

    path: Path
    step: int
    progress: dict[str, Any]
    """Tokens, seconds and sums so far."""


def write_progress(folder: Path, process: int, progress: Mapping[str, Any]) -> None:
    """Write what a process counts, and how much of the run's files belongs to the steps so far."""
    lines = {name: count_lines(folder.parent / name) for name in GROWING}
    write_json(folder / _progress_file(process), {**progress, "lines": lines})


def read_progress(folder: Path, process: int) -> dict[str, Any]:
    """Return what a process had counted."""
    progress: dict[str, Any] = json.loads((folder / _progress_file(process)).read_text(encoding="utf-8"))
    return progress


def _progress_file(process: int) -> str:
    return PROGRESS if process == 0 else f"progress_{process}.json"


def mark_complete(folder: Path) -> None:
    """Force every file of `folder` to the disk, then write the seal that makes it a checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    _refuse_incomplete(folder, {file.name for file in files})
    for file in files:
        sync(file)
    listed = {str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
    for inner in {folder, *(file.parent for file in files)}:
        sync(inner)
    # Last of all: a power cut before this leaves a folder without a seal, and no seal without its files.
    write_json(folder / SEAL, {"files": listed})
    sync(folder.parent)


def _refuse_incomplete(folder: Path, names: set[str]) -> None:
    """Raise RunError when something is missing without which a resumed run would be another run."""
    wanted = {
        "the trainer's state": any(name == "trainer_state.json" for name in names),
        "the learning rate's schedule": any(name.startswith("scheduler") for name in names),
        "the optimizer": any("optim" in name for name in names),
        "the random state": any(name.startswith("rng_state") for name in names),
        "the progress": PROGRESS in names,
    }
    missing = [what for what, there in wanted.items() if not there]
    if missing:
        raise RunError(f"{folder} lacks {' and '.join(missing)}: no run could be resumed from it.")


def integrity_error(folder: Path) -> str | None:
    """Return why nothing can be resumed from `folder`; None if it is whole."""
    try:
        listed = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "was not finished"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"has a seal that cannot be read: {error}"
    for name, known in listed.items():
        file = folder / name
        if not file.is_file():
            return f"has lost {name}"
        # The size first: that costs nothing, and a file that was cut short is not read.
        if file.stat().st_size != known["bytes"] or sha256(file) != known["sha256"]:
            return f"has a {name} that is not what was written"
    try:
        _refuse_incomplete(folder, {Path(name).name for name in listed})
    except RunError as error:
        return str(error).removeprefix(f"{folder} ")
    return None


def holds(folder: Path, file: Path) -> bool:
    """Whether a file, named relative to a checkpoint's folder, was written with it; without a seal, any file was."""
    try:
        listed = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return str(file) == SEAL or str(file) in listed


def folders(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every checkpoint in a run's folder, whole or not, the newest first."""
    found = [(path.name.removeprefix("checkpoint-"), path) for path in run.glob("checkpoint-*") if path.is_dir()]
    return sorted(((int(step), path) for step, path in found if step.isdigit()), reverse=True)


def whole(run: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints that a run can resume from, the newest first."""
    for step, path in folders(run):
        if integrity_error(path) is None:
            yield Checkpoint(path, step, read_progress(path, 0))


def discard(folder: Path) -> None:
    """Delete a checkpoint, its seal first: what is left if this is interrupted is not a checkpoint."""
    (folder / SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Retained:
    """Which checkpoints stay, once a newer one is sealed."""

    limit: int | None = 1
    """How many, at least the newest; None or 0 for all."""
    asked_for: bool = False
    """Whether the recipe says so; if not, those of a run that began when all were kept stay."""

    def __post_init__(self) -> None:
        """Take 0 and less as the trainer does: as no limit."""
        object.__setattr__(self, "limit", self.limit if self.limit and self.limit > 0 else None)

    def __str__(self) -> str:
        if self.limit is None:
            return "all of them are kept"
        if self.limit == 1 or not self.asked_for:
            return "the last and the best one are kept"
        return f"the last {self.limit} are kept, the best one among them"

    def told(self, strategy: str, steps: float, metric: str | None) -> str:
        """Return in a sentence when checkpoints are saved, by the trainer's options, and which of them are kept."""
        if strategy == "no":
            return "no checkpoints are saved, but at a signal"
        when = {"steps": f"every {steps:g} steps", "best": f"when {metric} is better than ever"}
        best = f" (by {metric})" if metric and "best" in str(self) else ""
        return f"checkpoints: {when.get(strategy, 'every epoch')}; {self}{best}"


PASSING = "passing"
"""Field of the progress: whether the checkpoint was saved to go when newer ones are there."""


def rotate(run: Path, keep: Retained, best: str | None, *, sealed: bool = True) -> None:
    """Keep the newest checkpoints and the best one; called once the newest is whole, and `sealed` if they are.

    The best one counts, and is kept beside the newest whatever the limit, as in transformers.
    """
    if keep.limit is None:
        return
    found = [path for _, path in folders(run) if (path / SEAL).is_file() or not sealed]
    # Of 50, 40, 30 and 20, where 30 is the best and two are kept, 50 and 30 stay; where three are, 40 does too.
    stay = found[:1] + [path for path in found[1:] if best and path.resolve() == Path(best).resolve()]
    rest = [path for path in found if path not in stay]
    for path in rest[max(keep.limit - len(stay), 0) :]:
        if keep.asked_for or read_progress(path, 0).get(PASSING):
            discard(path)
