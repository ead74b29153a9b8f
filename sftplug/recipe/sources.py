"""All that the rows of a recipe are read from."""

from __future__ import annotations

from collections.abc import Iterator

from sftplug.plugin.components import DatasetSource
from sftplug.recipe.model import Recipe


def sources_of(recipe: Recipe) -> Iterator[tuple[str, DatasetSource]]:
    """Yield (path in the recipe, source): those of its sections, then those that stand in options of components."""
    named: list[DatasetSource] = []
    for split, sections in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for index, section in enumerate(sections):
            named.append(section.source)
            yield f"data.{split}[{index}]", section.source
    for path, component in recipe.components():
        if isinstance(component, DatasetSource) and not any(component is source for source in named):
            yield path, component
