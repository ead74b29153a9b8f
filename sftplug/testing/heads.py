"""The laws of heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.plugin.calls import head_nll
from sftplug.plugin.components import Head
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make
from sftplug.testing.proofs import proving
from sftplug.types.output_layer import OutputLayer

if TYPE_CHECKING:
    from torch import Tensor

TOKENS, WIDTH, VOCABULARY = 12, 16, 37
"""What a head is held to its laws on."""
EQUAL = 1e-5
"""The part of itself by which a number may differ."""


@dataclass(frozen=True, slots=True)
class HeadSubject:
    """A head, and the output layer that it is tried on."""

    head: Head
    bias: bool
    scale: float
    softcap: float | None

    def given(self) -> tuple[Tensor, OutputLayer, Tensor]:
        """Return states, layer and labels, the same at each call; states and layer are trained."""
        import torch

        draw = torch.Generator().manual_seed(0)
        states = torch.randn(TOKENS, WIDTH, generator=draw).requires_grad_()
        weight = torch.randn(VOCABULARY, WIDTH, generator=draw).requires_grad_()
        bias = torch.randn(VOCABULARY, generator=draw).requires_grad_() if self.bias else None
        labels = torch.randint(VOCABULARY, (TOKENS,), generator=draw)
        return states, OutputLayer(weight, bias, self.scale, self.softcap), labels

    def found(self) -> tuple[Tensor, list[Tensor]]:
        """Return (N,) what the head says, and the gradients of a weighted sum of it."""
        states, layer, labels = self.given()
        return self._with_gradients(head_nll(self.head, states, layer, labels), states, layer)

    def expected(self) -> tuple[Tensor, list[Tensor]]:
        """Return the same by the definition."""
        states, layer, labels = self.given()
        return self._with_gradients(_by_definition(states, layer, labels), states, layer)

    def _with_gradients(self, nll: Tensor, states: Tensor, layer: OutputLayer) -> tuple[Tensor, list[Tensor]]:
        import torch

        weights = torch.linspace(0.0, 2.0, TOKENS)
        inputs = [states, layer.weight, *([] if layer.bias is None else [layer.bias])]
        gradients = torch.autograd.grad((nll * weights).sum(), inputs, materialize_grads=True, allow_unused=True)
        return nll.detach(), list(gradients)

    def __str__(self) -> str:
        """Return what the layer is like."""
        return f"bias {'there' if self.bias else 'absent'}, scale {self.scale:g}, softcap {self.softcap}"


@proving
def check_head(component: type[Head], /, **options: Any) -> None:
    """Hold a head to its laws, on output layers of every sort. Raises LawBroken.

    One that is done by the core, as its `takes` says, has no laws of its own but those of every component.
    """
    check_component(component, **options)
    made = make(component, options)
    if made.takes != "states":
        return
    for bias, scale, softcap in ((False, 1.0, None), (True, 1.0, None), (False, 0.5, None), (False, 1.0, 3.0)):
        check(made, LAWS, HeadSubject(made, bias, scale, softcap))


def is_the_likelihood(given: HeadSubject) -> None:
    """It is the negative log-likelihood of each token, whatever the model does to its logits."""
    (found, _), (expected, _) = given.found(), given.expected()
    said = f"{found.tolist()} and not {expected.tolist()} with {given}"
    demand(_close(found, expected), said, "scale and cap the products as `OutputLayer.logits` does.")


def has_its_gradient(given: HeadSubject) -> None:
    """Its gradient is that of the likelihood, of tokens that weigh differently."""
    (_, found), (_, expected) = given.found(), given.expected()
    for name, one, two in zip(("states", "weight", "bias"), found, expected, strict=False):
        apart = float((one - two).norm() / two.norm())
        said = f"the gradient of the {name} is off by {apart:.1e} of its length with {given}"
        demand(_close(one, two), said, "let the gradient of each token's own loss go through, before their sum.")


def leaves_a_frozen_layer_alone(given: HeadSubject) -> None:
    """Where the layer is not trained, as beside an adapter, the states have the same gradient and it has none."""
    import torch

    states, layer, labels = given.given()
    frozen = [value.requires_grad_(False) for value in (layer.weight, layer.bias) if value is not None]
    (expected,) = torch.autograd.grad(_by_definition(states, layer, labels).sum(), [states])
    torch.autograd.backward(head_nll(given.head, states, layer, labels).sum())
    fix = "compute gradients of what `requires_grad` says, and of nothing else."
    found = states.grad
    demand(found is not None and _close(found, expected), f"the gradient of the states is another with {given}", fix)
    demand(all(value.grad is None for value in frozen), f"the layer has a gradient with {given}", fix)


def is_the_same_again(given: HeadSubject) -> None:
    """It says the same each time, without gradients too, as in evaluation, and leaves what it is given as it is."""
    import torch

    states, layer, labels = given.given()
    first = head_nll(given.head, states, layer, labels).detach()
    before = given.given()
    left = torch.equal(states, before[0]) and torch.equal(layer.weight, before[1].weight)
    demand(left and torch.equal(labels, before[2]), f"what it was given was changed with {given}", "take a copy.")
    with torch.no_grad():
        second = head_nll(given.head, states, layer, labels)
    said = f"{first.tolist()} and then, without gradients, {second.tolist()} with {given}"
    demand(
        _close(second, first), said, "draw nothing at random, and let no number depend on gradients being asked for."
    )


def _by_definition(states: Tensor, layer: OutputLayer, labels: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(layer.logits(states), labels, reduction="none")


def _close(one: Tensor, two: Tensor) -> bool:
    return float((one - two).norm()) <= EQUAL * float(two.norm())


LAWS = (is_the_likelihood, is_the_same_again, has_its_gradient, leaves_a_frozen_layer_alone)
