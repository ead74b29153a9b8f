"""What the sections of a recipe are made of: their base, paths that are read, short forms and shares."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from sftplug.recipe.places import as_it_was
from sftplug.util.strict_model import StrictModel


def resolve_path(value: Any) -> Any:
    """Resolve a path against the folder of the file it was written in; other strings against the working folder."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    base = getattr(value, "base", None)
    try:
        path = Path(str(value)).expanduser()
        if path.is_absolute() or base is None:
            return str(path)
        found = (base / path).resolve()
        return str(found if found.exists() else as_it_was(base, str(value)) or found)
    except RuntimeError as error:  # symbolic links that lead in a circle, a home folder that nobody has
        raise ValueError(f"{value} leads to no file: {error}.") from error


def refuse_nul(value: str) -> str:
    """Raise ValueError for a text that no path can be."""
    if "\0" in value:
        raise ValueError("holds a NUL, which no path can.")
    return value


InputPath = Annotated[str, Field(min_length=1), BeforeValidator(resolve_path)]
"""A path that a recipe reads; relative paths are relative to the file that names them."""


def resolve_local_model(value: Any) -> Any:
    """A model is a Hub name unless it is written as a path: ``./model``, ``../model``, ``/models/x``, ``~/model``."""
    return resolve_path(value) if isinstance(value, str) and value.startswith((".", "/", "~")) else value


ModelName = Annotated[str, BeforeValidator(resolve_local_model)]
"""A model's name on the Hub, or its folder, written as a path (``./model``) that starts from the recipe."""


class ShortForm(Enum):
    """How a field that holds a list may be written beside that; `short_forms` spells it out."""

    ONE_FOR_A_LIST = "one item alone"
    UNIONS = "a strategy alone, or a list of strategies; each may be a union, ``a + b``"


class Section(StrictModel):
    """A part of a recipe that the core itself reads."""

    shorthand: ClassVar[str | None] = None
    """The option that a bare string sets."""
    alternatives: ClassVar[tuple[str, ...]] = ()
    """Keys of which a section has one: naming another replaces it when recipes are laid over each other."""


def as_share(value: Any) -> Any:
    """Read ``1%`` as 0.01."""
    if isinstance(value, str) and (number := re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", value)):
        return float(number[1]) / 100
    return value


Share = Annotated[float, BeforeValidator(as_share), Field(ge=0.0, le=1.0)]
"""A share: a number from 0 to 1, or per cent as in ``1%``."""
