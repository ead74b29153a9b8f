"""The parameters of a model that are trained, with what optimizers tell them apart by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sftplug.types.trained_parameters import TrainedParameter, TrainedParameters

if TYPE_CHECKING:
    from torch import nn


def trained_parameters(model: nn.Module, weight_decay: float) -> TrainedParameters:
    """Return the trained parameters of `model`; which of them decay is what transformers' trainer says."""
    from transformers import Trainer

    decaying = set(Trainer.get_decay_parameter_names(None, model))
    tables = {id(parameter) for module in _tables(model) for parameter in module.parameters()}
    found = tuple(
        TrainedParameter(name, parameter, name in decaying, id(parameter) in tables)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )
    return TrainedParameters(found, weight_decay, model)


def _tables(model: Any) -> Iterator[nn.Module]:
    """Yield embeddings and the head, whatever an adapter has put around them."""
    from torch import nn

    yield from (module for module in model.modules() if isinstance(module, nn.Embedding))
    for name in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(model, name, lambda: None)()
        if isinstance(module, nn.Module):
            yield module
