"""Prove a shipped recipe without the weights of its model: what holds of its shape and of a tiny twin, holds of it.

Four stages, each of which says what was seen:

* ``configuration``: transformers makes the model of its published shape (on the meta device, where tensors have no
  numbers); it has as many parameters as its makers count, the adapter finds its targets, and the twin has the same
  modules.
* ``template``: on the family's own chat template the replies are trained, all of them, and nothing else is.
* ``training``: the twin trains for two steps as the recipe says; its adapter is merged, and what was saved, loaded by
  transformers alone.
* ``memory``: `sftplug plan` counts no more than the hardware that the recipe names.

What is proven of none: that the weights on the Hub are those of the shape, the real tokenizer, how well and how fast a
model learns.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sftplug.errors import SftplugError
from sftplug.proving.shapes import ModelShape, family_template, known_shapes
from sftplug.proving.twin import Trained, overrides_for_twin, train_twin, trained_text
from sftplug.recipe.given import PYTHON, LoadRequest
from sftplug.recipe.load import load_asked
from sftplug.recipe.shipped import ShippedRecipe

if TYPE_CHECKING:
    from sftplug.recipe.load import LoadedRecipe

Outcome = Literal["proven", "not proven", "failed"]
STAGES = ("configuration", "template", "training", "memory")
_GPU = "H100"
"""What memory is planned for: all GPUs with units for bfloat16 are counted alike."""
_TOLERANCE = 0.03
"""How far the parameters of a shape may be from what its makers count, which they round."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What came of a stage of the proof."""

    outcome: Outcome
    text: str
    """What was seen, or why it was not."""


@dataclass(frozen=True, slots=True)
class RecipeProof:
    """What was proven of a recipe, and what was not."""

    recipe: str
    model: str
    architecture: str | None
    """transformers' ``model_type``; None where the shape of the model is not known."""
    stages: dict[str, Stage] = field(default_factory=dict)
    parameters: int | None = None
    trainable: int | None = None
    memory: tuple[int, int] | None = None
    """Bytes that a GPU needs: the least and the most that are planned."""
    limit: int | None = None
    """Bytes of the hardware that the recipe names."""

    @property
    def holds(self) -> bool:
        """Whether no stage failed; one that cannot be proven here may be left."""
        return all(stage.outcome != "failed" for stage in self.stages.values())


def to_dict(proofs: Sequence[RecipeProof]) -> dict[str, Any]:
    """Return proofs as JSON holds them, with the versions that they were made with."""
    from importlib.metadata import version

    named = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    return {
        "versions": {name: version(name) for name in named},
        "recipes": {proof.recipe: _plain(proof) for proof in proofs},
    }


def _plain(proof: RecipeProof) -> dict[str, Any]:
    known = asdict(proof)
    return {key: value for key, value in known.items() if key != "recipe"}


def prove_recipe(shipped: ShippedRecipe, folder: Path, *, stages: Sequence[str] = STAGES) -> RecipeProof:
    """Return what is proven of a shipped recipe that trains a model of the Hub; `folder` takes what is made for it.

    Twins that are trained alike are trained once for all recipes that are given the same `folder`.
    """
    shape = known_shapes().get(shipped.model)
    if shape is None:
        why = Stage("not proven", f"the shape of {shipped.model} is not among those that are shipped")
        return RecipeProof(shipped.name, shipped.model, None, dict.fromkeys(stages, why))
    if not _is_known(shape):
        why = Stage("not proven", f"transformers knows {shape.architecture} from {shape.since} on")
        return RecipeProof(shipped.name, shipped.model, shape.architecture, dict.fromkeys(stages, why))
    return _Proof(shipped, shape, folder).made(stages)


def _is_known(shape: ModelShape) -> bool:
    from transformers import CONFIG_MAPPING

    return shape.architecture in CONFIG_MAPPING


class _Proof:
    """A proof in the making."""

    def __init__(self, shipped: ShippedRecipe, shape: ModelShape, folder: Path) -> None:
        self.shipped, self.shape, self.folder = shipped, shape, folder
        self.known: dict[str, Any] = {}

    def made(self, stages: Sequence[str]) -> RecipeProof:
        found = {name: self._stage(name) for name in stages}
        return RecipeProof(self.shipped.name, self.shape.model, self.shape.architecture, found, **self.known)

    def _stage(self, name: str) -> Stage:
        try:
            return {
                "configuration": self._configuration,
                "template": self._template,
                "training": self._training,
                "memory": self._memory,
            }[name]()
        except SftplugError as error:
            return Stage("failed", f"{type(error).__name__}: {error}")

    # --- by the shape -------------------------------------------------------------------------------------------------

    def _configuration(self) -> Stage:
        with self._at_full_size() as full:
            count, names, problems = _modules(full)
        if problems:
            return Stage("failed", "; ".join(problems))
        self.known["parameters"] = count
        if abs(count / 1e9 / self.shape.billions - 1) > _TOLERANCE:
            return Stage("failed", f"{count:,} parameters, and its makers count {self.shape.billions} billion")
        with self._as_twin() as twin:
            _, of_twin, _ = _modules(twin)
        if names != of_twin:
            return Stage("failed", f"the twin has other modules: {', '.join(sorted(names ^ of_twin)[:5])}")
        return Stage("proven", f"{count / 1e9:,.2f} billion parameters, {len(names)} sorts of modules")

    def _memory(self) -> Stage:
        from sftplug.planning import make_plan
        from sftplug.util.device import find_device

        limit = self.shipped.memory
        if limit is None:
            return Stage("not proven", "the recipe names no GPU")
        with self._at_full_size() as full:
            plan = make_plan(full.recipe, find_device(_GPU))
        need = plan.memory.total
        self.known |= {"trainable": plan.trainable, "memory": (need.low, need.high), "limit": limit}
        most = "" if self.shipped.devices == 1 else f" of each of {self.shipped.devices}"
        text = f"{need.low / 1e9:.1f} to {need.high / 1e9:.1f} of {limit / 1e9:.0f} GB{most}"
        return Stage("proven" if need.high <= limit else "failed", text)

    @contextmanager
    def _at_full_size(self) -> Iterator[LoadedRecipe]:
        """The recipe, whose model is a folder with nothing but its published configuration."""
        from sftplug.util.device import find_device

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(self.shape.config), encoding="utf-8")
            yield self._loaded([f"model.name_or_path={folder}"], find_device(_GPU))

    def _loaded(self, overrides: Sequence[str], device: Any = None) -> LoadedRecipe:
        return load_asked(LoadRequest(self.shipped.name, tuple(overrides), origin=PYTHON), device=device)

    # --- by the twin --------------------------------------------------------------------------------------------------

    @contextmanager
    def _as_twin(self) -> Iterator[LoadedRecipe]:
        yield self._loaded(overrides_for_twin(self._loaded([]), self.shape, self.folder))

    def _template(self) -> Stage:
        with self._as_twin() as twin:
            asked, trained = trained_text(twin)
        if self._own_template_is_unknown():
            return Stage("not proven", f"TRL ships no copy of the template of {self.shape.model}; ChatML in its place")
        template = self.shape.template if self._takes_own_template() else self._loaded([]).recipe.chat_template.type
        left = [reply for reply in asked["assistant"] if reply not in trained]
        told = [question for question in asked["user"] if question in trained]
        if left or told:
            what = f"not trained: {left[0]!r}" if left else f"trained: {told[0]!r}"
            return Stage("failed", f"on the template {template}, {what}")
        return Stage("proven", f"on the template {template}, all replies and nothing else")

    def _takes_own_template(self) -> bool:
        return self._loaded([]).recipe.chat_template.type == "tokenizer"

    def _own_template_is_unknown(self) -> bool:
        known = self.shape.template is not None and family_template(self.shape.template) is not None
        return self._takes_own_template() and not known

    def _training(self) -> Stage:
        with self._as_twin() as twin:
            done: Trained = train_twin(twin, self.folder)
        return Stage("proven", done.text)


def _modules(loaded: LoadedRecipe) -> tuple[int, frozenset[str], list[str]]:
    """Return what a recipe's model has: how many parameters, which sorts of modules, what its adapter says of them.

    A sort is the name of a module that has parameters, layers not told apart, and its class.
    """
    from sftplug.model.loading import skeleton
    from sftplug.plugin.calls import model_problems

    model = skeleton(loaded.recipe)
    sorts = {
        f"{re.sub(r'[.][0-9]+(?=[.]|$)', '.N', name)}: {type(module).__name__}"
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    count = sum(parameter.numel() for parameter in model.parameters())
    return count, frozenset(sorts), list(model_problems(loaded.recipe.adapter, model))
