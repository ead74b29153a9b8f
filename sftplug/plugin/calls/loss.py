"""Calls of a loss and its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftplug.plugin.calls.check import checked, sentences
from sftplug.plugin.errors import plugin_error, plugin_errors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sftplug.plugin.components import Head, Loss
    from sftplug.types.output_layer import OutputLayer
    from sftplug.types.trained_tokens import TrainedTokens


def is_nll(loss: Loss) -> bool:
    """Whether a loss is the negative log-likelihood. Raises PluginError for anything but True and False."""
    with plugin_errors(loss, "is_nll"):
        answer: object = loss.is_nll
    return bool(checked(loss, "is_nll", answer, bool, "True or False"))


def teacher_of(loss: Loss) -> str | None:
    """Return the folder or name of the model whose logits a loss asks for. Raises PluginError for anything else."""
    with plugin_errors(loss, "teacher_model"):
        answer: object = loss.teacher_model
    named: str | None = checked(
        loss, "teacher_model", answer, (str, type(None)), "the folder or name of a model, or None"
    )
    return named


def token_losses(loss: Loss, tokens: TrainedTokens) -> Tensor:
    """Return (N,) float32 the loss of each token. Raises PluginError for anything else."""
    import torch

    with plugin_errors(loss, "token_losses"):
        answer: object = loss.token_losses(tokens)
    losses: Tensor = checked(loss, "token_losses", answer, torch.Tensor, "a tensor")
    if losses.shape != tokens.labels.shape or not losses.is_floating_point():
        wanted = f"a number for each of the {len(tokens)} tokens: a float tensor of shape ({len(tokens)},)"
        text = f"must return {wanted}, not one of {losses.dtype} of shape {tuple(losses.shape)}"
        raise plugin_error(loss, "token_losses", text)
    source = tokens.logits if tokens.likelihood is None else tokens.likelihood
    if source.requires_grad and not losses.requires_grad:
        text = "must return what depends on `tokens.logits`, and its gradient does not reach them: leave out `detach`"
        raise plugin_error(loss, "token_losses", text)
    return losses.float()


def head_problems(head: Head, model: nn.Module) -> list[str]:
    """Return what ``check_model`` of a head says about `model`. Raises PluginError for anything but sentences."""
    with plugin_errors(head, "check_model"):
        return sentences(head, "check_model", head.check_model(model))


def head_nll(head: Head, states: Tensor, layer: OutputLayer, labels: Tensor) -> Tensor:
    """Return (N,) float32 the negative log-likelihood of each token. Raises PluginError for anything else."""
    import torch

    with plugin_errors(head, "nll"):
        answer: object = head.nll(states, layer, labels)
    losses: Tensor = checked(head, "nll", answer, torch.Tensor, "a tensor")
    if losses.shape != labels.shape or not losses.is_floating_point():
        wanted = f"a number for each of the {len(labels)} tokens: a float tensor of shape ({len(labels)},)"
        raise plugin_error(
            head, "nll", f"must return {wanted}, not one of {losses.dtype} of shape {tuple(losses.shape)}"
        )
    if (states.requires_grad or layer.weight.requires_grad) and torch.is_grad_enabled() and not losses.requires_grad:
        text = "must return what depends on `states`, and its gradient does not reach them: leave out `detach`"
        raise plugin_error(head, "nll", text)
    return losses.float()
