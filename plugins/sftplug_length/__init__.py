"""Length policies: what becomes of a row that is too long."""

import sftplug
from sftplug_length.tokens import Chunks, Drop, Error, Truncate
from sftplug_length.turns import DropOldestTurns, SplitAtTurns


@sftplug.hookimpl
def sftplug_length_policies() -> list[type[sftplug.LengthPolicy]]:
    """Offer the built-in policies."""
    return [Error, Drop, Truncate, Chunks, DropOldestTurns, SplitAtTurns]
