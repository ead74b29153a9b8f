"""The rows that a trained model is measured on: those its run held out, or others of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from sftplug.data.origins import Origins
    from sftplug.data.prepare import Prepared
    from sftplug.recipe.model import Recipe, SourceSection
    from sftplug.types.loss_groups import LossGroup

FEW = 64
"""Rows that are read where a few of the training rows do."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A recipe that prepares the rows to measure on, and which of its splits they are."""

    recipe: Recipe
    split: str
    what: str
    """What the rows are, for the user: ``held-out rows`` or ``training rows``."""

    def of(self, prepared: Prepared) -> MeasuredRows:
        """Return the rows from what was prepared."""
        from sftplug.data.origins import Origins

        if self.split == "eval" and prepared.eval is not None:
            held_out = Origins(prepared.origins.file.with_name("eval.origins"), None)
            return MeasuredRows(prepared.eval, self.what, prepared, held_out, prepared.groups["eval"])
        return MeasuredRows(prepared.train, self.what, prepared, prepared.origins, prepared.groups["train"])


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Token rows that a model is measured on."""

    rows: Dataset
    """Columns ``input_ids``, ``labels`` and perhaps ``weights``; a row is a document."""
    what: str
    prepared: Prepared
    origins: Origins
    groups: Sequence[LossGroup]
    """What tells them apart: source and tags."""


def held_out(recipe: Recipe) -> Selection | None:
    """Return the selection of what the run held out; None if that was nothing."""
    data = recipe.data
    if data.eval:
        return Selection(_only(recipe, data.eval), "train", "held-out rows")
    if data.eval_fraction:
        return Selection(_unpacked(recipe), "eval", "held-out rows")
    return None


def given(recipe: Recipe) -> Selection:
    """Return the selection of rows that the user gave in place of the run's: they stand where training rows do."""
    return Selection(_only(recipe, recipe.data.train), "train", "given rows")


def few_training_rows(recipe: Recipe) -> Selection:
    """Return the selection of the first training rows, for where nothing was held out and any rows do."""
    # A source that reads fewer as it is keeps to them.
    first = [source.model_copy(update={"first": min(source.first or FEW, FEW)}) for source in recipe.data.train]
    return Selection(_only(recipe, first), "train", "training rows")


def _only(recipe: Recipe, sources: Sequence[SourceSection]) -> Recipe:
    """Return the recipe with these rows in place of the training rows, each once, and none held out."""
    once = tuple(source.model_copy(update={"share": None, "epochs": 1.0}) for source in sources)
    data = recipe.data.model_copy(update={"train": once, "eval": (), "eval_fraction": 0.0, "packing": "none"})
    return recipe.model_copy(update={"data": data})


def _unpacked(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"packing": "none"})})
