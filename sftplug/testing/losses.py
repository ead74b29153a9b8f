"""The laws of losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sftplug.plugin.calls import teacher_of, token_losses
from sftplug.plugin.components import Loss
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make
from sftplug.testing.proofs import proving
from sftplug.types.tokens import PARTS, ROLE_CODES
from sftplug.types.trained_tokens import TrainedTokens

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 37
"""Entries of the logits that a loss is held to its laws on."""


@dataclass(frozen=True, slots=True)
class LossSubject:
    """A loss, and how spread the logits are that it gets: 0 where the model knows nothing, 30 where it is certain."""

    loss: Loss
    spread: float

    def tokens(self) -> TrainedTokens:
        """Return 12 tokens, the same at each call."""
        import torch

        draw = torch.Generator().manual_seed(0)
        logits, base = (self.spread * torch.randn(12, VOCABULARY, generator=draw) for _ in range(2))
        # As tables of embeddings have it: more entries than tokens, and another number of them.
        teacher = self.spread * torch.randn(12, VOCABULARY + 3, generator=draw)
        labels = torch.randint(VOCABULARY, (12,), generator=draw)
        labels[::2] = logits[::2].argmax(-1)  # what the model expects, and what it does not
        codes = torch.randint(len(ROLE_CODES), (12,), generator=draw) << 3
        codes |= torch.randint(len(PARTS), (12,), generator=draw)
        return TrainedTokens(
            logits.requires_grad_(),
            labels,
            torch.rand(12, generator=draw) + 0.5,
            base if self.loss.reads_base else None,
            codes if self.loss.reads_provenance else None,
            teacher if teacher_of(self.loss) is not None else None,
        )

    def losses(self, tokens: TrainedTokens | None = None) -> Tensor:
        """Return the loss of each token."""
        return token_losses(self.loss, self.tokens() if tokens is None else tokens)


@proving
def check_loss(component: type[Loss], /, **options: Any) -> None:
    """Hold a loss to its laws, on logits of models that know nothing, something, and everything. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    for spread in (0.0, 1.0, 30.0):
        check(made, LAWS, LossSubject(made, spread))


def is_finite(given: LossSubject) -> None:
    """There is a finite number for each token, however likely it is."""
    losses = given.losses()
    said = f"{losses.tolist()} for logits of spread {given.spread:g}"
    demand(
        bool(losses.isfinite().all()), said, "work with logarithms, such as `tokens.log_probs()`, not with quotients."
    )


def has_a_gradient(given: LossSubject) -> None:
    """The gradient of the losses reaches the logits, and is finite."""
    import torch

    tokens = given.tokens()
    torch.autograd.backward(given.losses(tokens).sum())
    gradient = tokens.logits.grad
    found = "no gradient" if gradient is None else f"a gradient of {gradient.abs().max().item()}"
    kept = gradient is not None and math.isfinite(gradient.abs().sum().item())
    demand(kept, f"{found} for logits of spread {given.spread:g}", "clamp what is raised to a power or divided by.")


def judges_each_token_alone(given: LossSubject) -> None:
    """A token's loss is the same whichever others come with it."""
    import torch

    together = given.losses()
    for name, pieces in (("one by one", list(_pieces(1))), ("by fives", list(_pieces(5)))):
        apart = torch.cat([given.losses(given.tokens()[piece]) for piece in pieces])
        said = f"{together.tolist()} together and {apart.tolist()} {name}"
        close = torch.allclose(together, apart, rtol=1e-5, atol=1e-6)
        demand(close, said, "leave means and sums over tokens to the core.")


def _pieces(size: int) -> Iterator[slice]:
    return (slice(low, low + size) for low in range(0, 12, size))


def is_the_same_again(given: LossSubject) -> None:
    """The same tokens have the same losses each time, and are left as they are."""
    import torch

    tokens = given.tokens()
    first = given.losses(tokens)
    second = given.losses(tokens)
    demand(torch.equal(first, second), f"{first.tolist()} and then {second.tolist()}", "draw nothing at random.")
    for name in ("logits", "labels", "weights"):
        left = torch.equal(getattr(tokens, name), getattr(given.tokens(), name))
        demand(left, f"the {name} were changed", "do not write into what is given; take a copy.")


def is_what_it_says(given: LossSubject) -> None:
    """A loss that says that it is the negative log-likelihood is that."""
    import torch

    if not given.loss.is_nll:
        return
    found, expected = given.losses(), given.tokens().nll()
    said = f"{found.tolist()} and not {expected.tolist()}"
    demand(torch.allclose(found, expected, rtol=1e-5, atol=1e-6), said, "let `is_nll` be False.")


def does_without_logits(given: LossSubject) -> None:
    """A loss that says that it reads no logits is the same where a head has made none."""
    import torch

    if given.loss.reads_logits:
        return
    tokens = given.tokens()
    bare = replace(tokens, logits=tokens.logits[:, :0], likelihood=tokens.nll())
    found, expected = given.losses(bare), given.losses()
    said = f"{found.tolist()} and not {expected.tolist()}"
    fix = "let `reads_logits` be True, or ask for `tokens.nll()` alone."
    demand(torch.allclose(found, expected, rtol=1e-5, atol=1e-6), said, fix)


LAWS = (
    is_finite,
    has_a_gradient,
    judges_each_token_alone,
    is_the_same_again,
    is_what_it_says,
    does_without_logits,
)
