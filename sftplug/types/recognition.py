"""What a format says of rows that it could read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Recognized:
    """What a format answers to rows that are its own."""

    by: str
    """What it knows them by, as it stands behind its name: ``column conversations``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options with which it reads them, as a recipe has them; none where its defaults do."""
