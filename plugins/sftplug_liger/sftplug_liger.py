"""Liger's kernels: norms, rotary embeddings and feed-forward layers in Triton, and a head that makes no logits."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from sftplug import Head, ModelPatch, OutputLayer, Recipe, hookimpl, require, restoring

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig

_NAMES = {"rope": ("rope",), "rms_norm": ("rms_norm",), "mlp": ("swiglu", "geglu", "relu_squared")}
"""Option -> what Liger's functions call it, one of them for each family of models."""
_LEFT_OUT = ("cross_entropy", "fused_linear_cross_entropy", "layer_norm")
"""What sftplug does itself, and the layers of towers for images, which rows of text do not reach."""


class Liger(ModelPatch):
    """Compute norms, rotary embeddings and feed-forward layers in kernels of Liger (Hsu et al. 2024, arXiv:2410.10989).

    They do the same in fewer passes over memory, and keep less for the backward pass. The loss stays sftplug's;
    `loss.head: liger` lets Liger's kernel compute it. The kernels are there in training alone: a plain model computes
    the same, and needs none of them. Needs a GPU.
    """

    type: Literal["liger"] = "liger"
    rope: bool | None = None
    """Rotary embeddings; null is true where Liger has a kernel for those of the model."""
    rms_norm: bool | None = None
    """Norms; null as for `rope`."""
    mlp: bool | None = None
    """Feed-forward layers (SwiGLU, GeGLU, squared ReLU); null as for `rope`."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so where the recipe asks for the CPU."""
        if recipe.train.get("use_cpu") and not _interpreted():
            yield "needs a GPU, and `train.use_cpu` is true. Leave one of the two out."

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say what is missing: a GPU, or kernels for this model."""
        kind = str(getattr(model.config, "model_type", ""))
        known = _functions()
        yield from _without_gpu("model patch liger", "a plain model is the same")
        if kind not in known:
            yield f"Liger has no kernels for models of type {kind}. Leave it out. It knows {', '.join(sorted(known))}."
            return
        taken = inspect.signature(known[kind]).parameters
        for option, names in _NAMES.items():
            if getattr(self, option) and not any(name in taken for name in names):
                yield f"Liger has no kernel for the `{option}` of models of type {kind}. Leave `{option}` out."

    @contextmanager
    def before_loading(self, config: PretrainedConfig) -> Iterator[None]:
        """Put Liger's classes and functions in the places of those that the model is made of."""
        apply = _functions()[config.model_type]
        importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
        with restoring("transformers.models", "torch.nn"):
            apply(**self.arguments(apply))
            yield

    def arguments(self, apply: Any) -> dict[str, bool]:
        """Return the arguments for one of Liger's functions: each takes those that its models have."""
        chosen = {name: getattr(self, option) is not False for option, names in _NAMES.items() for name in names}
        chosen |= dict.fromkeys(_LEFT_OUT, False)
        taken = inspect.signature(apply).parameters
        return {name: value for name, value in chosen.items() if name in taken}


class LigerHead(Head):
    """Liger's fused head: products, likelihood and gradient of a few tokens at a time, and no logits in memory.

    Hsu et al. 2024, arXiv:2410.10989, section 3.2; each token's own gradient goes through it, so tokens may have
    weights. It goes together with losses that ask for the likelihood alone: ``cross_entropy`` without options, ``dft``
    and ``focal``. Gradients of a trained output layer are summed in 32 bits. Needs a GPU.
    """

    type: Literal["liger"] = "liger"

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Say so where the recipe asks for the CPU."""
        if recipe.train.get("use_cpu") and not _interpreted():
            yield "needs a GPU, and `train.use_cpu` is true. Leave one of the two out."

    def check_model(self, model: nn.Module) -> Iterable[str]:
        """Say what is missing: a GPU, or the library."""
        yield from _without_gpu("head liger", "the usual head is equal")
        _fused()

    def nll(self, states: Tensor, layer: OutputLayer, labels: Tensor) -> Tensor:
        """Return the likelihood of each token; what the model multiplies its products by goes to the states first."""
        torch = require("torch", needed_by="head liger")
        losses: Tensor = _fused()(
            states * layer.scale if layer.scale != 1.0 else states,
            layer.weight,
            labels,
            bias=layer.bias if layer.bias is None or layer.scale == 1.0 else layer.bias * layer.scale,
            reduction="none",
            softcap=layer.softcap,
            accum_dtype=torch.float32,
        )
        return losses


def _without_gpu(who: str, instead: str) -> Iterator[str]:
    if not (_interpreted() or require("torch", needed_by=who).accelerator.is_available()):
        yield f"liger needs a GPU, and there is none here. Leave it out on this machine: {instead}."


def _fused() -> Any:
    """Return Liger's function from states, weight and labels to losses."""
    module = "liger_kernel.transformers.functional"
    return require(module, needed_by="head liger", install="pip install liger-kernel").liger_fused_linear_cross_entropy


def _functions() -> Mapping[str, Any]:
    """Return type of model -> the function of Liger that patches what it is made of."""
    module = "liger_kernel.transformers.monkey_patch"
    library = require(module, needed_by="model patch liger", install="pip install liger-kernel")
    known: Mapping[str, Any] = library.MODEL_TYPE_TO_APPLY_LIGER_FN
    return known


def _interpreted() -> bool:
    """Whether Triton is told to compute on the CPU, in Python: very slow, and for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@hookimpl
def sftplug_model_patches() -> list[type[ModelPatch]]:
    """Offer it."""
    return [Liger]


@hookimpl
def sftplug_heads() -> list[type[Head]]:
    """Offer it."""
    return [LigerHead]
