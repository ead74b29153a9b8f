"""A model with patches, compared with the plain one that whoever loads the result computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftplug.plugin.calls import loading_code
from sftplug.plugin.errors import describe
from sftplug.training.probe import DiffersError, Probe, logits_of

if TYPE_CHECKING:
    from torch import Tensor

    from sftplug.recipe.model import Recipe

ROUNDED = {"float16": 0.02, "bfloat16": 0.05}
"""Numbers of the base -> by how much logits may differ at least, as a share of their standard deviation: what
`sftplug merge` allows, for a kernel that sums in another order rounds as often."""


def compare_with_plain(recipe: Recipe, probe: Probe, model: Any) -> float:
    """Return how far the logits of the patched model are from those of the plain `model`, of the same weights.

    That is the mean of the absolute difference, as a share of their standard deviation. Raises DiffersError for more
    than the patches, and the numbers of the base, allow.
    """
    apart = difference(probe.expected, logits_of(model, probe.ids))
    rounded = ROUNDED.get(str(probe.live.dtype).removeprefix("torch."), 0.0)
    allowed = max(rounded, sum(patch.tolerance for patch in recipe.patches))
    if not apart <= allowed:
        named = ", ".join(describe(patch) for patch in recipe.patches)
        coded = any(loading_code(patch).strip() for patch in recipe.patches)
        raise DiffersError(
            f"a plain model with these weights{', changed by the `loading_code` of its patches,' * coded} computes "
            f"something else than the patched one ({named}): logits differ by {apart:.1e} of their standard "
            f"deviation, and {allowed:.0e} is allowed",
            _CODED if coded else _PLAIN,
        )
    return apart


_PLAIN = (
    "Leave the patch out; or let it say `changes_logits = True`, and let its `loading_code` return the Python that "
    "does the same to a plain model."
)
_CODED = "Leave the patch out; or let its `loading_code` return Python that does to a plain model what the patch does."


def difference(first: Tensor, second: Tensor) -> float:
    """Return the mean absolute difference of two sets of (L, V) logits, as a share of the deviation of the first."""
    if first.shape != second.shape:
        return float("inf")
    return float((first - second).abs().mean()) / max(float(first.std()), 1e-12)


def told(recipe: Recipe, apart: float | None) -> list[dict[str, Any]]:
    """Return what the record of a run says of its patches; `apart` is how far the model was from a plain one."""
    return [
        {"type": patch.type, "changes_logits": patch.changes_logits, "difference": apart} for patch in recipe.patches
    ]
