"""What computes a recipe's loss from hidden states where nothing is tried: what it names, or what suits the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from sftplug.plugin.calls import head_problems, is_nll

if TYPE_CHECKING:
    from sftplug.plugin.components import Head, Loss
    from sftplug.recipe.model import Recipe


class HeadInUse(NamedTuple):
    """What computes losses from the last hidden states in a run."""

    name: str
    takes: Literal["states", "pieces", "logits", "trl"]
    """What it is given, as of `Head.takes`."""
    head: Head | None = None
    """The component, where it does something itself."""


FULL = HeadInUse("full", "logits")
"""The model's own logits, of all trained positions at once."""
CHUNKED = HeadInUse("chunked", "pieces")
FUSED = HeadInUse("fused", "trl")


def first_head(recipe: Recipe, *, on_cpu: bool) -> HeadInUse:
    """Return the head that the recipe names, else the usual one of the device.

    On a CPU that is the model's own logits; elsewhere what holds no logits of all tokens, where the loss allows it.
    """
    if recipe.loss.head is not None:
        return in_use(recipe.loss.head)
    if on_cpu or any(patch.changes_logits for patch in recipe.patches):
        return FULL
    if only_likelihood(recipe.loss):
        return FUSED
    return FULL if splits(recipe) else CHUNKED


def in_use(head: Head) -> HeadInUse:
    """Return a component as a head in use."""
    return HeadInUse(head.type, head.takes, head)


def only_likelihood(loss: Loss) -> bool:
    """Whether a loss asks for no more than the negative log-likelihood, so that no logits need be made."""
    return is_nll(loss) or not loss.reads_logits


def splits(recipe: Recipe) -> bool:
    """Whether processes hold pieces of the output layer, which a head of its own would have to gather."""
    named = recipe.launch is not None and recipe.launch.strategy != "ddp"
    return named or any(recipe.train.get(option) for option in ("fsdp", "deepspeed", "parallelism_config"))


def problems_of_head(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence for everything because of which the head that the recipe names cannot be used here."""
    from sftplug.model.loading import attention_options, skeleton

    if recipe.loss.head is not None:
        model = skeleton(recipe, **attention_options(recipe))
        yield from (f"loss.head: {text}" for text in head_problems(recipe.loss.head, model))


def head_before(recipe: Recipe, *, on_cpu: bool) -> HeadInUse:
    """Return the head of a run that was begun when there was nothing to choose."""
    own = any(patch.changes_logits for patch in recipe.patches)
    return FULL if on_cpu or own or not is_nll(recipe.loss) else FUSED
