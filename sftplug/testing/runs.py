"""Runs of a model of two layers: as every run goes, in a temporary folder, with components put in by hand."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache, cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug import api
from sftplug.recipe.load import LoadedRecipe

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from sftplug.data.prepare import Prepared
    from sftplug.plugin.components import Adapter, Callback, ModelPatch, Quantization
    from sftplug.recipe.model import Recipe

TINY = {"type": "tiny", "pretrain_steps": 0, "layers": 2, "hidden_size": 64}
"""Random weights; the built-in builder keeps what it has built."""

_COLORS = ("red", "green", "blue", "black")


def load_tiny(**sections: Any) -> LoadedRecipe:
    """Return a recipe for the tiny model, with `sections` over its own. Its files are gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="sftplug-") as name:
        folder = Path(name)
        recipe = {
            "model": {"build": TINY},
            "data": {"train": {"path": str(write_rows(folder)), "format": "messages"}},
            "chat_template": "chatml",
            "quantization": "fp32",
            "train": {
                "max_steps": 5,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-2,
                "logging_steps": 1,
                "save_strategy": "no",
                "use_cpu": True,
            },
            **sections,
        }
        loaded = api.load(recipe)
        _prepared_rows(loaded)
        return loaded


def write_rows(folder: Path) -> Path:
    """Write the 16 conversations that laws train on to a file in `folder`, and return it."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(_row(index)) + "\n" for index in range(16)), encoding="utf-8")
    return file


def _row(index: int) -> dict[str, Any]:
    question = {"role": "user", "content": f"What is the colour of {index}?"}
    return {"messages": [question, {"role": "assistant", "content": f"It is {_COLORS[index % 4]}."}]}


_KEPT: list[Prepared] = []


def _prepared_rows(loaded: LoadedRecipe) -> Prepared:
    """Return the rows as the trainer gets them, prepared once: no component that is judged has a part in them."""
    if not _KEPT:
        _KEPT.append(api.prepare(loaded, quiet=True))
    return _KEPT[0]


@dataclass
class TrainingRun:
    """One training run; what is asked of it is done when it is asked for."""

    quantization: Quantization | None = None
    adapter: Adapter | None = None
    callbacks: Sequence[Callback] = ()
    patches: Sequence[ModelPatch] = ()
    adapter_name: str = "full"
    """The adapter by its name, where none is judged."""

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, with what is judged in its place."""
        given = {"quantization": self.quantization, "adapter": self.adapter}
        update: dict[str, Any] = {name: part for name, part in given.items() if part is not None}
        folder = tempfile.mkdtemp(prefix="sftplug-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        update |= {"callbacks": tuple(self.callbacks), "patches": tuple(self.patches), "output": folder}
        return _tiny(self.adapter_name).recipe.model_copy(update=update)

    @cached_property
    def fresh(self) -> PreTrainedModel:
        """The base model as it is loaded."""
        return self.load()

    def load(self) -> PreTrainedModel:
        """Load the base model once more."""
        from sftplug.model.loading import load_model

        return load_model(self.recipe)

    def load_base(self) -> PreTrainedModel:
        """Load the base model once more, without what an adapter does to it."""
        from sftplug.model.loading import load_fitting_base

        return load_fitting_base(self.recipe)

    @cached_property
    def trainer(self) -> Any:
        """The trainer, before its first step."""
        from transformers import set_seed

        from sftplug.training.train import make_trainer

        set_seed(0)
        return make_trainer(self.recipe, self.load(), _prepared_rows(_tiny(self.adapter_name)))

    @cached_property
    def losses(self) -> tuple[float, float]:
        """The loss over the same rows before and after training."""
        from transformers import set_seed

        from sftplug.run import open_session

        trainer = self.trainer
        before = self.loss(trainer.model)
        set_seed(0)
        # What a callback prints is not a part of a test's report.
        with redirect_stdout(StringIO()), open_session(self._record()):
            trainer.train()
        return before, self.loss(trainer.model)

    def _record(self) -> LoadedRecipe:
        """Return what the folder of the run is to say: the tiny recipe, for what is judged need not be installed."""
        loaded = _tiny(self.adapter_name)
        return replace(loaded, recipe=loaded.recipe.model_copy(update={"output": self.recipe.output}))

    @property
    def trained(self) -> Any:
        """The model after training."""
        assert self.losses
        return self.trainer.model

    def loss(self, model: Any, *, gradients: bool = False) -> float:
        """Return the loss of `model` over a batch of rows; its `gradients` go to its parameters."""
        import torch

        from sftplug.training.collator import Collator

        rows = _prepared_rows(_tiny(self.adapter_name)).train
        batch = Collator(0)([rows[index] for index in range(8)])
        kept = {name: batch[name] for name in ("input_ids", "labels", "attention_mask")}
        was_training = model.training
        model.eval()
        with torch.set_grad_enabled(gradients):
            loss = model(**kept).loss
        if gradients:
            torch.autograd.backward(loss)
        model.train(was_training)
        return float(loss.detach())


@cache
def _tiny(adapter: str) -> LoadedRecipe:
    return load_tiny(adapter=adapter)


def logits(model: Any) -> torch.Tensor:
    """Return the (L, V) logits of `model` for a few tokens, as 32-bit floats."""
    import torch

    was_training = model.training
    model.eval()
    with torch.no_grad():
        values: torch.Tensor = model(torch.arange(5, 25)[None]).logits[0].float()
    model.train(was_training)
    return values


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest difference of two sets of logits, as a share of the largest of them."""
    return float((first - second).abs().max() / max(1.0, float(first.abs().max())))


def weights_of(model: Any) -> dict[str, NDArray[Any]]:
    """Return a copy of every parameter by name."""
    return {name: value.detach().float().numpy().copy() for name, value in model.named_parameters()}
