"""The model that a run has trained, loaded again as the run had it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftplug.errors import RunError
from sftplug.model.loading import base_model_path, is_cached, load_base
from sftplug.model.merging import with_adapter
from sftplug.model.remote_code import code_options
from sftplug.model.weight_files import check_adapter
from sftplug.recipe.adapter_base import is_adapter
from sftplug.run import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe


def open_finished(path: Path) -> RunDirectory:
    """Return the folder of a finished run. Raises RunError when `path` is none, or the run has no model yet."""
    directory = RunDirectory.open(path)
    state = directory.state()
    if state.state != "finished":
        reason = f": {state.reason.removesuffix('.')}" if state.reason else ""
        raise RunError(f"the run in {path} is not finished, it is {state.state}{reason}. {_AGAIN[state.state]}")
    return directory


_AGAIN = {
    "running": "`sftplug train` resumes it, unless it is running still.",
    "interrupted": "`sftplug train` resumes it.",
    "failed": "Once that is fixed, `sftplug train` resumes it.",
}


def load_tuned(directory: RunDirectory, recipe: Recipe) -> PreTrainedModel:
    """Return the model as the run trained it, in evaluation mode: the adapter on its base, or the whole model."""
    if not is_adapter(directory.path):
        model = load_base(recipe, directory.path)
    else:
        check_adapter(directory.path, base_model_path(recipe), built=is_cached(recipe))
        model = with_adapter(recipe, load_base(recipe), directory.path)
    return placed(model)


def placed(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in evaluation mode, on the accelerator if there is one; quantized weights are where they are."""
    import torch

    if torch.accelerator.is_available() and not getattr(model, "is_quantized", False):
        model = model.to(torch.accelerator.current_accelerator())
    return model.eval()


def load_tuned_tokenizer(directory: RunDirectory, recipe: Recipe) -> PreTrainedTokenizerBase:
    """Return the tokenizer that the run saved, with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(directory.path), **code_options(recipe.model, directory.path))
