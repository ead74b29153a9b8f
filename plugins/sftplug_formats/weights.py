"""What a message says about its own loss."""

from __future__ import annotations

from sftplug import RowError
from sftplug_formats.fields import kind_of
from sftplug_formats.spelling import Keys

SWITCHES = ("train", "training", "loss")
WEIGHTS = (*SWITCHES, "weight")
"""Keys with which a message or a part says whether, and how much, it is trained."""


def read_weight(given: Keys, where: str) -> float | None:
    """Return the loss weight that `train`, `loss` or `weight` gives; None where there is none. Raises RowError."""
    found = [key for key in WEIGHTS if given.get(key) is not None]
    if not found:
        return None
    if len(found) > 1:
        raise RowError(f"{where}.{found[0]}", f"does not go together with {found[1]}")
    key, value = found[0], given[found[0]]
    if isinstance(value, bool) and key in SWITCHES:
        return float(value)
    if key in ("train", "training"):
        raise RowError(f"{where}.{key}", f"must be true or false, not {kind_of(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise RowError(f"{where}.{key}", f"must be a number of at least 0, not {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise RowError(f"{where}.{key}", "is a number beyond all bounds") from error
