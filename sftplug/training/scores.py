"""What a model says of the tokens of a batch: its logits, or the last hidden states and what makes logits of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from sftplug.types.output_layer import OutputLayer

if TYPE_CHECKING:
    from torch import Tensor


Numbers = Callable[[], AbstractContextManager[Any]]
"""Makes a context in which matrices are multiplied as in the model's forward pass: that of autocast, or none."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model says at some positions."""

    values: Tensor
    """(…, V) logits; or (…, H) hidden states, if there is a `project`."""
    project: Callable[[Tensor], Tensor] | None = None
    """Makes logits of hidden states; None where the values are logits."""

    def at(self, where: Tensor) -> Scores:
        """Return (N, …) what is said where (B, P) `where` is true, row by row."""
        return Scores(self.values[where], self.project)

    def logits(self, some: slice) -> Tensor:
        """Return (n, V) float32 the logits of some of the tokens."""
        return self.logits_of(self.values[some])

    def logits_of(self, values: Tensor) -> Tensor:
        """Return (n, V) float32 the logits of some of the values."""
        return (values if self.project is None else self.project(values)).float()


class OutputHead:
    """The head of a model: its output layer, and what the model does to the products."""

    def __init__(self, own: nn.Module, numbers: Numbers = nullcontext) -> None:
        """Find it in a model that nothing is wrapped around but an adapter; `numbers` is what it computes in."""
        base = base_of(own)
        self.own = own
        self.module: nn.Module = base.get_output_embeddings()
        config = base.config.get_text_config()
        self.numbers = numbers
        self.scale, self.softcap = scale_of(config), getattr(config, "final_logit_softcapping", None)

    def __call__(self, states: Tensor) -> Tensor:
        """Return (…, V) the logits of (…, H) states, in the numbers that the model computes in."""
        with self.numbers():
            products: Tensor = self.module(states)
        return OutputLayer(products, None, self.scale, self.softcap).finished(products)

    def layer(self) -> OutputLayer | None:
        """Return its numbers; None where it is no plain linear layer of floats: quantized, or with an adapter on it."""
        module = self.module
        if (kept := getattr(module, "modules_to_save", None)) is not None:  # a copy that PEFT trains as a whole
            module = kept[module.active_adapter]
        if type(module) is not nn.Linear or not module.weight.is_floating_point():
            return None
        return OutputLayer(module.weight, module.bias, self.scale, self.softcap)

    @contextmanager
    def catching(self) -> Iterator[list[Tensor]]:
        """Keep the hidden states that come to the head in a list; no logits are made of them."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            caught.append(arguments[0])
            return (arguments[0][:, :0], *arguments[1:])

        handle = self.module.register_forward_pre_hook(catch)
        try:
            yield caught
        finally:
            handle.remove()


def scale_of(config: Any) -> float:
    """Return what a model multiplies the products of its output layer by, under the names that families have for it."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):  # Cohere; Muse Glimmer; Falcon-H1
        if (factor := getattr(config, name, None)) is not None:
            return float(factor)
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    # Granite divides by it. HyperCLOVA X has the name and multiplies.
    return float(divisor) if config.model_type == "hyperclovax" else 1 / float(divisor)


def base_of(own: Any) -> Any:
    """Return the model within an adapter of PEFT; a model without one is that itself."""
    unwrap = getattr(own, "get_base_model", None)
    return unwrap() if callable(unwrap) else own


def logits_at(model: Any, own: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> tuple[Scores, Any]:
    """Return the (B, P, V) logits at `positions`, the others not computed where the model can do so; its outputs.

    `own` is the `model` within whatever several processes wrap around it; `positions`: (P,) negative, counted from the
    end.
    """
    outputs, chosen = _run(model, own, inputs, positions)
    return Scores(outputs.logits if chosen else outputs.logits[:, positions]), outputs


def states_at(model: Any, head: OutputHead, inputs: Mapping[str, Any], positions: Tensor) -> tuple[Scores, Any]:
    """Return the (B, P, H) states that come to `head` at `positions`, and the model's outputs, which have no logits."""
    with head.catching() as caught:
        outputs, chosen = _run(model, head.own, inputs, positions)
    return Scores(caught[0] if chosen else caught[0][:, positions], head), outputs


def _run(model: Any, own: nn.Module, inputs: Mapping[str, Any], positions: Tensor) -> tuple[Any, bool]:
    """Return the outputs of a model, and whether it was able to choose the positions."""
    # PEFT's own `forward` takes any argument and hands it on: only the base says what it knows.
    if "logits_to_keep" in inspect.signature(type(base_of(own)).forward).parameters:
        return model(**inputs, use_cache=False, logits_to_keep=positions), True
    return model(**inputs, use_cache=False), False
