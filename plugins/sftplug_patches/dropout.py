"""Dropout of the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from sftplug import ModelPatch, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DisableDropout(ModelPatch):
    """Switch off the dropout that the base model brings: GPT-2, OPT and Phi drop a tenth of their activations.

    That was meant for pretraining, where a row is seen once. TRL's trainers for preferences do the same under this
    name, of layers of dropout alone; here the dropout of attention and whole dropped layers are switched off too. The
    dropout of an adapter is its own, and stays. Without dropout nothing changes in evaluation.
    """

    type: Literal["disable_dropout"] = "disable_dropout"
    tolerance: ClassVar[float] = 0.0

    def after_loading(self, model: PreTrainedModel) -> None:
        """Set the probability to 0, wherever a module holds one."""
        nn = require("torch", needed_by="model patch disable_dropout").nn
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
            for name, value in vars(module).items():
                # Attention drops by a function, and holds only the probability; `layerdrop` is that of whole layers.
                if isinstance(value, float) and name.endswith(("dropout", "dropout_p", "pdrop", "layerdrop")):
                    setattr(module, name, 0.0)
