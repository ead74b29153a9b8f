"""Train weights of the base model itself: all of them, or those that match."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sftplug import Adapter, Field, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from sftplug import Recipe


def refuse_frozen_base(adapter: str, recipe: Recipe) -> Iterable[str]:
    """Yield a sentence when the recipe's quantization gives weights that cannot be trained."""
    if not recipe.quantization.trainable:
        yield (
            f"'{adapter}' trains the base weights, which cannot be trained as {recipe.quantization.type}. "
            "Choose `quantization: bf16` or `fp32`, or an adapter such as `lora`."
        )


class Full(Adapter):
    """Train every parameter of the model."""

    type: Literal["full"] = "full"
    trains_base = True

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the base weights cannot be trained."""
        return refuse_frozen_base(self.type, recipe)

    def peft_config(self) -> None:
        """Return None: the model's own parameters are trained."""


class Freeze(Adapter):
    """Train only the parameters that match, and freeze the rest."""

    type: Literal["freeze"] = "freeze"
    trains_base = True
    train: list[str] = Field(min_length=1)
    """Patterns of parameter names, with ``*`` and ``?``: ``model.layers.1?.*``, ``*.norm.weight``."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so when the base weights cannot be trained."""
        return refuse_frozen_base(self.type, recipe)

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say so when a pattern matches no parameter."""
        names = [name for name, _ in model.named_parameters()]
        for pattern in self.train:
            if not fnmatch.filter(names, pattern):
                hint = did_you_mean(pattern, names)
                yield f"`train: {pattern}` matches no parameter.{hint} One is called {names[0]}."

    def peft_config(self) -> None:
        """Return None: the model's own parameters are trained."""

    def prepare_model(self, model: nn.Module) -> None:
        """Freeze what does not match."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in self.train))
