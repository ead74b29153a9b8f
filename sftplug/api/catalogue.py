"""List what recipes are shipped, by the memory that they need and the model that they train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftplug.recipe.shipped import ShippedRecipe


def recipes(
    memory: str | int | None = None, model: str | None = None, *, without: Iterable[str] = ()
) -> list[ShippedRecipe]:
    """Return the shipped recipes, those of installed plugins among them; reads files and loads no library.

    `memory` keeps those that are made for at most so much, ``"24GB"`` or bytes, of all their GPUs together; `model`
    those with this text in their name or their model's: ``"qwen3"``. `without` are names of plugins that are not
    loaded. Raises SftplugError where none is left.
    """
    from sftplug.api.planning import parse_bytes
    from sftplug.recipe.shipped import chosen, every_recipe

    limit = parse_bytes(memory) if isinstance(memory, str) else memory
    return chosen(every_recipe(tuple(without)), limit, model)
