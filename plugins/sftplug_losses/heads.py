"""Heads: ways from the last hidden states to the loss, which are equal and differ in time and memory."""

from __future__ import annotations

from typing import ClassVar, Literal

from sftplug import Head


class Full(Head):
    """The model's own logits, of all trained tokens of a batch at once: the fastest where they are few, as on CPUs."""

    type: Literal["full"] = "full"
    takes: ClassVar[Literal["states", "pieces", "logits", "trl"]] = "logits"


class Chunked(Head):
    """Logits of 1,024 tokens at a time, made once more in the backward pass: never those of a batch in memory.

    The head's products are computed four times in place of three. It goes together with every loss; the logits of a
    base or a teacher are made a piece at a time too. That is gradient checkpointing (Chen et al. 2016,
    arXiv:1604.06174) of the output layer and the loss.
    """

    type: Literal["chunked"] = "chunked"
    takes: ClassVar[Literal["states", "pieces", "logits", "trl"]] = "pieces"


class Fused(Head):
    """TRL's head: logits in tiles of 4,096 tokens and 32,768 entries, of which only sums are kept.

    It makes no logits, so it goes together with losses that ask for the likelihood alone: ``cross_entropy`` without
    options, ``dft`` and ``focal``. With a GPU its tiles are read by a kernel in Triton; without one it scores every
    position, masked or not. It logs entropy and accuracy of the tokens beside the loss.
    """

    type: Literal["fused"] = "fused"
    takes: ClassVar[Literal["states", "pieces", "logits", "trl"]] = "trl"
