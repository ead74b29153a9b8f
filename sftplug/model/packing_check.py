"""Prove on the real model that the documents of a packed row do not see each other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_log = logging.getLogger(__name__)
TOLERANCE = 1e-4
_LENGTH = 8


def check_isolation(model: nn.Module) -> float:
    """Return by how much another first document changes the second one's logits, at most; raises ModelError if it does.

    Two forward passes over a row of two documents, with the attention that training uses. Some families ignore
    `position_ids` when they build their masks, or carry a state across documents, and would learn from the wrong
    context without a word.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            changed = (_second_document(model, 0) - _second_document(model, 1)).abs().max().item()
    finally:
        model.train(was_training)
    if not changed <= TOLERANCE:  # logits that are not numbers prove nothing
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        raise ModelError(
            f"packing would let documents see each other in this model ({family}): another first document changes the "
            f"second one's logits by {changed:.2g}. Set `data.packing: none`."
        )
    _log.info("another first document changes the second one's logits by %.2g, at most %.2g", changed, TOLERANCE)
    return float(changed)


def _second_document(model: Any, variant: int) -> Tensor:
    """Return (8, V) the logits of the second document when the first is `variant`."""
    import torch

    config = model.config.get_text_config()
    # 5, 8, 11, … or 6, 13, 20, …: another first document at every place. The second is the same, 7, 9, 11, …
    first = torch.arange(_LENGTH) * (3 + 4 * variant) + 5 + variant
    second = torch.arange(_LENGTH) * 2 + 7
    ids = (torch.cat([first, second]) % config.vocab_size)[None].to(model.device)
    positions = torch.arange(_LENGTH).repeat(2)[None].to(model.device)
    logits: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits[0, _LENGTH:].float()
