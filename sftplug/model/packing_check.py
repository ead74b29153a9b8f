"""Prove on the real model that the documents of a packed row do not see each other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.model.structure import idle_parts

if TYPE_CHECKING:
    from torch import Tensor, nn

_log = logging.getLogger(__name__)
TOLERANCE = 1e-4
_LENGTH = 8


def check_isolation(model: nn.Module, *, marked: bool | None = None) -> float:
    """Return by how much another first document changes the second one's logits, at most; raises ModelError if it does.

    Two forward passes over a row of two documents, with the attention that training uses and the keys that a batch
    has: `marked` says whether those of `document_marks` are among them, by default whether the model needs them. Some
    families ignore `position_ids` when they build their masks, or carry a state across documents, and would learn from
    the wrong context without a word.
    """
    import torch

    marked = carries_state(model) if marked is None else marked
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            changed = (_second_document(model, 0, marked) - _second_document(model, 1, marked)).abs().max().item()
    except Exception as error:  # kernels that keep documents apart fail in ways of their own where they are missing
        if not marked:
            raise
        raise _leaks(model, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    finally:
        model.train(was_training)
    if not changed <= TOLERANCE:  # logits that are not numbers prove nothing
        raise _leaks(model, f"another first document changes the second one's logits by {changed:.2g}.")
    _log.info("another first document changes the second one's logits by %.2g, at most %.2g", changed, TOLERANCE)
    return float(changed)


def _leaks(model: nn.Module, why: str) -> ModelError:
    family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    return ModelError(
        f"packing would let documents see each other in this model ({family}): {why} Set `data.packing: none`."
    )


def _second_document(model: Any, variant: int, marked: bool) -> Tensor:
    """Return (8, V) the logits of the second document when the first is `variant`."""
    import torch

    config = model.config.get_text_config()
    # 5, 8, 11, … or 6, 13, 20, …: another first document at every place. The second is the same, 7, 9, 11, …
    first = torch.arange(_LENGTH) * (3 + 4 * variant) + 5 + variant
    second = torch.arange(_LENGTH) * 2 + 7
    ids = (torch.cat([first, second]) % config.vocab_size)[None].to(model.device)
    positions = torch.arange(_LENGTH).repeat(2)[None].to(model.device)
    marks = document_marks([_LENGTH, _LENGTH], model.device) if marked else {}
    logits: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False, **marks).logits
    return logits[0, _LENGTH:].float()


# --- models with a state ----------------------------------------------------------------------------------------------


def carries_state(model: nn.Module) -> bool:
    """Whether something but attention reads tokens before the one at hand: a convolution over them, one a channel.

    Gated delta nets, Mamba and short convolutions all have such a one. Where `position_ids` start anew says nothing to
    it; `document_marks` does.
    """
    from torch import nn

    idle = tuple(f"{part}." for part in idle_parts(model))
    return any(
        isinstance(module, nn.Conv1d) and module.groups == module.in_channels > 1 and module.kernel_size[0] > 1
        for name, module in model.named_modules()
        if not name.startswith(idle)
    )


def document_marks(lengths: Sequence[int], device: Any = None) -> dict[str, Any]:
    """Return where the documents of one row begin, in all the ways that models with a state ask for it.

    ``cu_seq_lens_q`` and ``cu_seq_lens_k``: (documents + 1,) the sums of the lengths, from 0 on; ``max_length_q`` and
    ``max_length_k``: the longest; ``seq_idx``: (1, L) of which document each token is. Their names are those of
    transformers' ``TransformersKwargs`` and of TRL's batches without padding.
    """
    import torch

    sizes = torch.tensor(lengths, dtype=torch.int32)
    ends = torch.cat([sizes.new_zeros(1), sizes.cumsum(0, dtype=torch.int32)]).to(device)
    which = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), sizes)[None].to(device)
    longest = int(sizes.max())
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
        "seq_idx": which,
    }
