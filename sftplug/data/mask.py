"""Loss weight per token: the recipe's masking strategies, multiplied and united."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sftplug.blame import blaming, complain
from sftplug.components import Masking
from sftplug.errors import MaskError
from sftplug.tokens import TokenBatch

Weights = NDArray[np.float32]


def weigh(tokens: TokenBatch, maskings: Sequence[Sequence[Masking]]) -> Weights:
    """Return the (N,) loss weight of each token: the product over `maskings` of the maximum over each union.

    Raises MaskError naming the strategy when what it returned is no weight: another shape, negative, or not finite.
    """
    weights = np.ones(len(tokens.ids), dtype=np.float32)
    for union in maskings:
        weights *= np.maximum.reduce([_checked(masking, tokens) for masking in union])
    return weights


def _checked(masking: Masking, tokens: TokenBatch) -> Weights:
    with blaming(masking, "weights"):
        weights = np.asarray(masking.weights(tokens))
    if weights.shape != tokens.ids.shape:
        raise _wrong(masking, f"returned an array of shape {weights.shape}; expected {tokens.ids.shape}")
    if weights.dtype != np.bool_ and weights.dtype.kind not in "iuf":
        raise _wrong(masking, f"returned an array of {weights.dtype}; expected bool or float")
    weights = weights.astype(np.float32)
    if not np.isfinite(weights).all() or (weights < 0).any():
        bad = int(np.flatnonzero(~np.isfinite(weights) | (weights < 0))[0])
        raise _wrong(masking, f"gave token {bad} of the batch the weight {weights[bad]}; weights are finite and >= 0")
    return weights


def _wrong(masking: Masking, text: str) -> MaskError:
    return MaskError(complain(masking, "weights", text))
