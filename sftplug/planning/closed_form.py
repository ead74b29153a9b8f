"""Activations by formula, for models whose code cannot run on tensors without numbers.

Korthikanti et al. 2022 (arXiv:2205.05198), equation 2: a layer of a transformer keeps ``34 s b h`` bytes in 16 bits
for s positions, b rows and width h, and ``5 a s² b`` more where attention with a heads keeps its weights. Gated
feed-forward layers, 32-bit norms and adapters keep more, so the range goes up to three times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftplug.planning.result import Range

if TYPE_CHECKING:
    from sftplug.planning.settings import Settings
    from sftplug.planning.weights import ModelWeights

SPREAD = 3
"""The most that layers of today keep is so many times what the formula says."""


def activations(config: Any, settings: Settings, batch: int, length: int) -> Range:
    """Return what the forward pass of `batch` rows of `length` tokens keeps, in bytes."""
    text = config.get_text_config()
    layers, width, heads = text.num_hidden_layers, text.hidden_size, text.num_attention_heads
    itemsize = (settings.autocast or settings.dtype).itemsize
    layer = 34 * length * batch * width
    if getattr(config, "_attn_implementation", None) == "eager":
        layer += 5 * heads * length**2 * batch
    kept = layers * layer
    if settings.checkpointing:
        kept = layers * 2 * length * batch * width + layer  # the input of each layer, and one layer at a time
    # The formula is for numbers of two bytes.
    return Range(kept * itemsize // 2, SPREAD * kept * itemsize // 2)


def logits(config: Any, settings: Settings, batch: int, scored: int) -> int:
    """Return the bytes of logits in their own type, twice in 32 bits, and their gradient."""
    size = config.get_text_config().vocab_size * batch * scored
    return int(size * (2 * (settings.autocast or settings.dtype).itemsize + 2 * 4))


def flops(weights: ModelWeights, settings: Settings, tokens: int) -> float:
    """Return 2 operations a weight and token forward, 2 backward, 2 for the gradient of a trained weight.

    Kaplan et al. 2020 (arXiv:2001.08361), section 2.1; recomputing adds another forward pass.
    """
    passes = 4 + (2 if settings.checkpointing else 0)
    return float(tokens) * (passes * weights.total + 2 * weights.trainable)
