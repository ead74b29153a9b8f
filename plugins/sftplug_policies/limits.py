"""What recipes may have: rates, models, licences."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

from sftplug import Field, Policy, Recipe


class Limits(Policy):
    """Keep recipes within limits: of the learning rate, and to models that are allowed. What is not said is free."""

    type: Literal["limits"] = "limits"
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False, examples=[1e-3])
    """Largest learning rate."""
    models: tuple[str, ...] | None = None
    """The base models that are allowed: names, or patterns such as ``HuggingFaceTB/*``; of one that is built on the
    spot, the builder's name, ``build:tiny``. Folders are compared as they are resolved."""
    commands: tuple[str, ...] = ("check", "train")
    """The commands that are held to the limits."""

    def problems(self, recipe: Recipe, command: str) -> Iterator[str]:
        """Yield what is beyond the limits."""
        if command not in self.commands:
            return
        rate = recipe.train["learning_rate"]
        if self.learning_rate is not None and rate > self.learning_rate:
            yield f"`train.learning_rate` may be {self.learning_rate:g} at most, and is {rate:g}."
        yield from self._model(recipe)

    def _model(self, recipe: Recipe) -> Iterator[str]:
        build = recipe.model.build
        name = recipe.model.name_or_path if build is None else f"build:{build.type}"
        if self.models is not None and not any(fnmatchcase(str(name), pattern) for pattern in self.models):
            allowed = ", ".join(self.models) or "none"
            yield f"the model {name} is not one of those that are allowed: {allowed}."
