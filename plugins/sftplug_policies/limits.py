"""What recipes may have: rates, models, licences."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

from sftplug import Field, Policy, PolicyCommand, Recipe


class Limits(Policy):
    """Keep recipes within limits: of the learning rate, and to models that are allowed. What is not said is free."""

    type: Literal["limits"] = "limits"
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False, examples=[1e-3])
    """Largest learning rate."""
    models: tuple[str, ...] | None = None
    """The base models that are allowed: names, or patterns such as ``HuggingFaceTB/*``; of one that is built on the
    spot, the builder's name, ``build:tiny``. Folders are compared as they are resolved."""
    licences: tuple[str, ...] | None = None
    """The licences that training rows may have, as ``meta: {licence: …}`` of their source says it."""
    commands: tuple[PolicyCommand, ...] = ("check", "train")
    """The commands that are held to the limits."""

    def problems(self, recipe: Recipe, command: str) -> Iterator[str]:
        """Yield what is beyond the limits."""
        if command not in self.commands:
            return
        rate = recipe.train["learning_rate"]
        if self.learning_rate is not None and rate > self.learning_rate:
            yield f"`train.learning_rate` may be {self.learning_rate:g} at most, and is {rate:g}."
        yield from self._model(recipe)
        yield from self._licences(recipe)

    def _model(self, recipe: Recipe) -> Iterator[str]:
        build = recipe.model.build
        name = recipe.model.name_or_path if build is None else f"build:{build.type}"
        if self.models is not None and not any(fnmatchcase(str(name), pattern) for pattern in self.models):
            allowed = ", ".join(self.models) or "none"
            yield f"the model {name} is not one of those that are allowed: {allowed}."

    def _licences(self, recipe: Recipe) -> Iterator[str]:
        for index, source in enumerate(recipe.data.train if self.licences is not None else ()):
            licence = source.meta.get("licence", source.meta.get("license"))
            allowed = ", ".join(self.licences or ()) or "none"
            if licence is None:
                yield f"`data.train[{index}]` does not say its licence: add `meta: {{licence: …}}` to it, of {allowed}."
            elif licence not in (self.licences or ()):
                yield f"the licence of `data.train[{index}]`, {licence}, is not one of those allowed: {allowed}."
