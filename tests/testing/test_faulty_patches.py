"""A faulty model patch breaks a law, and is told which, what was found, and how to fix it."""

import itertools
from typing import ClassVar, Literal
from unittest import mock

import torch
from testing.test_faulty import AnyText, broken
from transformers.models.llama import modeling_llama

from sftplug import ModelPatch, restoring
from sftplug.testing import check_model_patch

COUNT = itertools.count()
HOOK = "model.get_output_embeddings().register_forward_hook(lambda _, __, x: 2 * x)"


class Same(ModelPatch):
    """It computes the same in another class."""

    type: Literal["same"] = "same"

    def before_loading(self, config):
        return mock.patch.object(modeling_llama, "LlamaMLP", type("OwnMLP", (modeling_llama.LlamaMLP,), {}))


class Double(ModelPatch):
    """It doubles the logits, and says so."""

    type: Literal["double"] = "double"
    changes_logits: ClassVar[bool] = True

    def after_loading(self, model):
        model.get_output_embeddings().register_forward_hook(lambda _, __, x: 2 * x)

    def loading_code(self):
        return HOOK


class Idle(ModelPatch):
    """It does nothing."""

    type: Literal["idle"] = "idle"


class Elsewhere(Same):
    """It works on another machine."""

    def check_model(self, model):
        yield "needs a GPU that is not here."


class Lasting(Same):
    """It changes classes for good."""

    def before_loading(self, config):
        modeling_llama.LlamaMLP = type("OwnMLP", (modeling_llama.LlamaMLP,), {})
        return mock.MagicMock()


class Wandering(Double):
    """It is another one for each model."""

    def after_loading(self, model):
        factor = 1 + next(COUNT)
        model.get_output_embeddings().register_forward_hook(lambda _, __, x: factor * x)


class Spreading(Double):
    """It changes every model that comes after."""

    def after_loading(self, model):
        modeling_llama.LlamaForCausalLM.forward = self.doubled(modeling_llama.LlamaForCausalLM.forward)

    def doubled(self, forward):
        def own(model, *args, **kwargs):
            out = forward(model, *args, **kwargs)
            out.logits = out.logits * (1 + 1e-3)
            return out

        return own


class Secret(Double):
    """It does not say that it changes anything."""

    changes_logits: ClassVar[bool] = False

    def loading_code(self):
        return ""


class Tolerant(Secret):
    """It says that twice is close enough."""

    tolerance: ClassVar[float] = 1.0


class Misread(Double):
    """Its card does something else."""

    def loading_code(self):
        return HOOK.replace("2", "3")


class Backward(torch.autograd.Function):
    """The same, with a gradient of nothing."""

    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        return 0 * gradient


class Numb(ModelPatch):
    """Its kernel has a wrong backward pass."""

    type: Literal["numb"] = "numb"

    def after_loading(self, model):
        model.model.layers[0].mlp.register_forward_hook(lambda _, __, x: Backward.apply(x))


class Cut(Numb):
    """Its kernel has no backward pass."""

    def after_loading(self, model):
        model.model.layers[0].mlp.register_forward_hook(lambda _, __, x: x.detach())


def test_patches():
    check_model_patch(Same)
    check_model_patch(Double)
    assert broken(check_model_patch, Idle) == ("does_something", AnyText("| override one of them."))
    assert broken(check_model_patch, Elsewhere) == ("fits_a_model", AnyText("needs a GPU that is not here."))
    with restoring("transformers.models.llama"):
        assert broken(check_model_patch, Lasting) == (
            "undoes_what_it_changes",
            AnyText("LlamaMLP'] are others afterwards | let `sftplug.restoring` put back"),
        )
    assert broken(check_model_patch, Wandering) == ("is_the_same_again", AnyText("| draw nothing at random"))
    with restoring("transformers.models.llama"):
        law, found = broken(check_model_patch, Spreading)
    assert (law, found) == ("leaves_other_models_alone", AnyText("| change the model in after_loading, and classes"))
    assert broken(check_model_patch, Secret) == (
        "computes_the_same_or_says_so",
        AnyText("of their standard deviation, and 0.0001 is the tolerance | set `changes_logits = True`"),
    )
    assert broken(check_model_patch, Misread) == ("is_loaded_by_its_card", AnyText("| let loading_code return Python"))
    assert broken(check_model_patch, Numb) == ("has_the_gradients_of_its_logits", AnyText("| give the kernel a"))
    assert broken(check_model_patch, Cut) == ("has_the_gradients_of_its_logits", AnyText("numbers have no gradient"))
