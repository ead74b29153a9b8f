"""The laws of exporters, on finished runs of a model of two layers: one that trained an adapter, one all weights."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug import api
from sftplug.plugin.components import Exporter
from sftplug.run.card import CARD
from sftplug.run.files import EXPORTED
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import load_tiny, write_rows

if TYPE_CHECKING:
    from sftplug.api.result import TrainedRun


@dataclass
class ExportTrial:
    """An exporter, a finished run, and an empty folder to write to."""

    exporter: Exporter
    run: TrainedRun
    folder: Path

    def export(self, name: str) -> dict[str, str]:
        """Export to `name` in the folder; return path -> SHA-256 of each file that is there now."""
        target = self.folder / f"{name}{self.exporter.suffix}"
        self.run.export(self.exporter, target)
        return _hashes(target) if target.is_dir() else {"": _hash(target)}

    def was_compared(self, name: str) -> bool:
        """Whether what was exported to `name` was compared with the trained model."""
        target = self.folder / f"{name}{self.exporter.suffix}"
        return bool(self.run.directory.exports()[str(target.resolve())]["compared"])


@proving
def check_exporter(component: type[Exporter], /, **options: Any) -> None:
    """Hold an exporter to its laws, on an adapter and on a whole model. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    for adapter in ("lora", "full"):
        with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
            check(made, LAWS, ExportTrial(made, _finished(adapter), Path(folder)))


def leaves_the_run_alone(trial: ExportTrial) -> None:
    """No file of the run's folder is written, changed or removed."""
    before = _hashes(trial.run.output)
    trial.export("first")
    after = _hashes(trial.run.output)
    # sftplug itself keeps there what was exported, and tells in the card how it compares. Other exporters may have been
    # compared before, on the same run: that is no leave for this one.
    for name in (EXPORTED, CARD) if trial.was_compared("first") else (EXPORTED,):
        before.pop(name, None)
        after.pop(name, None)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    demand(not changed, f"{shown(changed)} of the run differ", "write to `target` only; copy what you change.")


def writes_to_its_target_alone(trial: ExportTrial) -> None:
    """Nothing appears beside the target."""
    before = {path.name for path in trial.folder.iterdir()}
    trial.export("second")
    new = {path.name for path in trial.folder.iterdir()} - before
    beside = sorted(new - {f"second{trial.exporter.suffix}"})
    demand(not beside, f"{shown(beside)} stands beside the target", "write into `target`, or to a temporary folder.")


def writes_the_same_again(trial: ExportTrial) -> None:
    """The same model gives the same bytes."""
    first, second = trial.export("third"), trial.export("fourth")
    apart = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    demand(
        not apart,
        f"{shown([name or 'the file' for name in apart])} differ in a second export",
        "leave out times, random names and the order of a set.",
    )


LAWS = (leaves_the_run_alone, writes_to_its_target_alone, writes_the_same_again)


@cache
def _finished(adapter: str) -> TrainedRun:
    """Return a finished run; its folder is there as long as the process."""
    kept = tempfile.TemporaryDirectory(prefix="sftplug-")
    _KEPT.append(kept)
    folder = Path(kept.name)
    rows = {"train": {"path": str(write_rows(folder)), "format": "messages"}}
    how = {"max_steps": 2, "save_strategy": "no", "use_cpu": True}
    return api.train(load_tiny(adapter=adapter, data=rows, train=how, output=str(folder / "run")), show=False)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): _hash(file) for file in files}


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
