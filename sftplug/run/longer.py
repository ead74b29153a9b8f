"""A finished run whose recipe asks for more training: it goes on from its last checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.errors import RunError
from sftplug.run import checkpoints
from sftplug.run.result import how_to_train_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sftplug.recipe.load import LoadedRecipe
    from sftplug.run.checkpoints import Checkpoint
    from sftplug.run.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Longer:
    """By what a recipe asks for more than a finished run has had."""

    name: str
    """The option of the trainer: ``num_train_epochs`` or ``max_steps``."""
    then: float
    now: float

    @property
    def path(self) -> str:
        """Where it stands in a recipe."""
        return f"train.{self.name}"

    def told(self, steps: int, found: Checkpoint) -> str:
        """Return that the run goes on, and by which schedule; it has made `steps` updates so far."""
        again = f", so the {steps - found.step} updates after it are made again" if found.step < steps else ""
        return (
            f"the run had ended after {steps:,} updates; {self.path} is {self.now:g} now and was {self.then:g}, so it "
            f"goes on from {found.path.name}, with the optimizer and the random state as they were there{again}. The "
            "schedule is that of the longer run, from that update on, so the learning rate may be another than the run "
            "had ended with"
        )


def length(train: Mapping[str, Any]) -> tuple[str, float]:
    """Return which option of `train` says how long a run is, and what it says."""
    steps = train.get("max_steps", -1)
    return ("max_steps", steps) if steps > 0 else ("num_train_epochs", train.get("num_train_epochs", 3.0))


def longer(loaded: LoadedRecipe, directory: RunDirectory) -> Longer | None:
    """Return by what the recipe asks for more than the finished run in `directory` has had; None if it does not."""
    (before, then), (name, now) = length(directory.recipe()["train"]), length(loaded.recipe.train)
    return Longer(name, then, now) if name == before and now > then else None


def refuse_ended(directory: RunDirectory, found: Checkpoint | None, cannot_merge: Sequence[str]) -> None:
    """Raise RunError where a longer run could not go on from the end of a finished one."""
    if found is None:
        raise RunError(
            f"{directory.path} holds a finished run without a checkpoint: its optimizer was not saved, so it cannot go "
            f"on from its end. {how_to_train_on(directory.path, cannot_merge)}"
        )
    if found.progress["stopped"] and found.step < planned(found.path):
        raise RunError(
            f"{directory.path} holds a run that a callback ended after {found.step} of {planned(found.path)} updates: "
            f"a longer one would end there too. {how_to_train_on(directory.path, cannot_merge)}"
        )


def how_to_lengthen(directory: RunDirectory) -> str:
    """Return how a finished run goes on from its end; nothing where it has no checkpoint to go on from."""
    if not any((folder / checkpoints.SEAL).is_file() for _, folder in checkpoints.folders(directory.path)):
        return ""
    name, value = length(directory.recipe()["train"])
    return f"To let it go on from its end: more than {value:g} of `train.{name}`. "


def planned(checkpoint: Path) -> int:
    """Return how many updates the run was to have when the checkpoint was saved."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["max_steps"])
