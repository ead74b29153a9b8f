"""Calls of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftplug.plugin.calls.check import read_only, sentences
from sftplug.plugin.errors import plugin_errors

if TYPE_CHECKING:
    from sftplug.plugin.components import Policy
    from sftplug.recipe.model import Recipe


def policy_problems(policy: Policy, recipe: Recipe, command: str) -> list[str]:
    """Return what a policy says against `command`. Raises PluginError for anything but sentences."""
    with plugin_errors(policy, "problems"):
        return sentences(policy, "problems", policy.problems(read_only(recipe), command))
