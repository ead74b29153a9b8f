"""The laws of policies, on recipes of several sorts and for every command."""

from __future__ import annotations

import pickle
from typing import Any

from sftplug.plugin.calls import policy_problems
from sftplug.plugin.components import Policy
from sftplug.recipe.model import Recipe
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import load_tiny

COMMANDS = (
    *("check", "prepare", "preview", "plan", "train", "launch", "eval", "chat", "merge", "export", "push"),
    "quantize_later",
)
"""Every command, and one that there may be one day."""


@proving
def check_policy(component: type[Policy], /, **options: Any) -> None:
    """Hold a policy to its laws. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, made)


def answers_for_every_command(policy: Policy) -> None:
    """It says sentences, or nothing, of every recipe and every command, of one that it does not know too."""
    for recipe in _recipes():
        for command in COMMANDS:
            policy_problems(policy, recipe, command)


def says_the_same_again(policy: Policy) -> None:
    """It goes by recipe and command alone: asked again, or as a copy, it says the same."""
    copy = pickle.loads(pickle.dumps(policy))
    for recipe in _recipes():
        for command in COMMANDS:
            first = policy_problems(policy, recipe, command)
            for asked in (policy, copy):
                again = policy_problems(asked, recipe, command)
                found = f"of `{command}` it said {shown(first)}, and then {shown(again)}"
                demand(again == first, found, "go by options, recipe and command; no times, no draws, no state.")


LAWS = (answers_for_every_command, says_the_same_again)


def _recipes() -> list[Recipe]:
    """Return recipes that differ in what policies look at."""
    loaded = (
        load_tiny(adapter="full"),
        load_tiny(adapter="lora", train={"num_train_epochs": 2, "use_cpu": True}, export="zip"),
    )
    return [found.recipe for found in loaded]
