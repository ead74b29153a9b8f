"""The kind that says what may not be done: the rules of a house."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sftplug.plugin.components.base import Component

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe


PolicyCommand = Literal[
    "check", "prepare", "preview", "plan", "train", "launch", "eval", "chat", "merge", "export", "push"
]
"""What policies are asked about. `explain`, `replay` and `report`, which show what is there, ask none."""


class Policy(Component):
    """Says what is against the rules: which recipes are not to be run, and what is not to be done with their runs.

    A house file puts policies in force for every recipe (``policies = [...]`` in ``sftplug.toml``), a recipe those that
    it names under ``policies:``. What they say is told with all else that is wrong with a recipe.
    """

    @abstractmethod
    def problems(self, recipe: Recipe, command: str) -> Iterable[str]:
        """Yield a sentence for everything for which `command` is not to be run on `recipe`.

        `command` is what is about to be done: ``check``, ``prepare``, ``preview``, ``plan``, ``train``,
        ``launch`` (training in processes of its own), ``eval``, ``chat``, ``merge``, ``export``, ``push``; there may be
        more of them one day. Before a training, what will follow it is asked for too: ``export`` where the
        recipe exports, ``eval`` where it has metrics; and ``check`` asks for all that ``train`` does.

        The recipe is as it is run, with all filled in that it leaves open, and cannot be changed. Called before
        anything is downloaded or loaded; must be quick and must not import a heavy library.
        """
