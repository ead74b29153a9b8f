"""Loss weight per token: the recipe's masking strategies, multiplied and united."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sftplug.plugin.calls import loss_weights
from sftplug.plugin.components import Masking
from sftplug.types.tokens import TokenBatch

Weights = NDArray[np.float32]


def weigh(tokens: TokenBatch, maskings: Sequence[Sequence[Masking]]) -> Weights:
    """Return the (N,) loss weight of each token: the product over `maskings` of the maximum over each union.

    Raises MaskError naming the strategy when what it returned is not a weight: another shape, negative, or not finite.
    """
    weights = np.ones(len(tokens.ids), dtype=np.float32)
    # [assistant + completion, {tool_calls: 0.5}]: a call in an earlier turn weighs max(1, 0) * 0.5.
    for union in maskings:
        weights *= np.maximum.reduce([loss_weights(masking, tokens) for masking in union])
    return weights
