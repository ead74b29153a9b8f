"""Calls of model patches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from sftplug.plugin.calls.check import kind_of, sentences
from sftplug.plugin.components import ModelPatch
from sftplug.plugin.errors import plugin_error, plugin_errors

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


def changes_loading(patch: ModelPatch) -> bool:
    """Whether a patch changes what models are made of, before one is loaded."""
    return type(patch).before_loading is not ModelPatch.before_loading


@contextmanager
def before_loading(patch: ModelPatch, config: PretrainedConfig) -> Iterator[None]:
    """Change what models are made of while the block lasts. Raises PluginError for anything but a context."""
    with plugin_errors(patch, "before_loading"):
        answer: object = patch.before_loading(config)
        if isinstance(answer, type) or not isinstance(answer, AbstractContextManager):
            text = f"must return a context manager, which undoes what it does, not {kind_of(answer)}"
            raise plugin_error(patch, "before_loading", text)
        # By hand, and not by `with`: what goes wrong in the block is neither blamed on the patch nor shown to it, which
        # could swallow it.
        answer.__enter__()
    try:
        yield
    finally:
        with plugin_errors(patch, "before_loading"):
            answer.__exit__(None, None, None)


def after_loading(patch: ModelPatch, model: PreTrainedModel) -> PreTrainedModel:
    """Return the model as a patch makes it. Raises PluginError for one of another class, or with other parameters."""
    before, kind = _parameters(model), type(model).__name__
    with plugin_errors(patch, "after_loading"):
        answer: Any = patch.after_loading(model)
    made = model if answer is None else answer
    if type(made).__name__ != kind:
        text = f"must return the model, of the class {kind} whose name is saved with it, or None, not {kind_of(answer)}"
        raise plugin_error(patch, "after_loading", text)
    now = _parameters(made)
    if now != before:
        other = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        text = (
            f"must leave the parameters of the model as they are: {other} was {before.get(other, 'not there')} and is "
            f"{now.get(other, 'not there')}; what is trained is brought by an adapter"
        )
        raise plugin_error(patch, "after_loading", text)
    patched: PreTrainedModel = made
    return patched


def _parameters(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.named_parameters(remove_duplicate=False)}


def patch_problems(patch: ModelPatch, model: nn.Module) -> list[str]:
    """Return what ``check_model`` of a patch says about `model`. Raises PluginError for anything but sentences."""
    with plugin_errors(patch, "check_model"):
        return sentences(patch, "check_model", patch.check_model(model))
