"""What is not to be done here, whatever the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sftplug import Field, Policy, PolicyCommand, Recipe


class Forbid(Policy):
    """Forbid commands: that nothing leaves this machine by ``push``, say."""

    type: Literal["forbid"] = "forbid"
    commands: tuple[PolicyCommand, ...] = Field(min_length=1, examples=[["push"]])
    """Names of commands, such as ``push``, ``export``, ``merge`` or ``launch``."""
    because: str = ""
    """Why, for those who are refused: a sentence, or whom to ask."""

    def problems(self, recipe: Recipe, command: str) -> Iterator[str]:
        """Yield that it is forbidden."""
        if command in self.commands:
            yield f"`{command}` is forbidden here.{f' {self.because}' if self.because else ''}"
