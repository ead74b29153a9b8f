"""What policies say against a recipe: those that it names, and those of the house file, which no recipe takes away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from sftplug.errors import Problem
from sftplug.plugin.calls import component_problems, policy_problems
from sftplug.plugin.components import PARTS, Policy
from sftplug.plugin.registry import Registry
from sftplug.recipe.choices import Parts, policies_class
from sftplug.recipe.house import House
from sftplug.recipe.model import Recipe
from sftplug.recipe.named_plugins import named_in
from sftplug.recipe.problems import origin_of, problem_at, problems_from
from sftplug.recipe.short_forms import spell_out
from sftplug.recipe.upgrade import upgrade_options
from sftplug.recipe.yaml import Path_, Tree


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy that is in force."""

    policy: Policy
    tree: Tree
    """Where it is named: in a recipe, or in a house file."""
    path: Path_

    def problem(self, sentence: str) -> Problem:
        """Return what it says, as its own words: where it was put in force, and by which name."""
        return problem_at(self.tree, self.path, f"policy '{self.policy.type}': {sentence}")


def house_rules(house: House, registry: Registry, aged: list[str] | None = None) -> tuple[list[Rule], list[Problem]]:
    """Return the policies of a house file, and what is wrong with how they are written.

    `aged` is told which of their options are those of an earlier version.
    """
    tree = spell_out(house.policies(), registry.classes())
    upgraded = upgrade_options(tree, registry)
    if aged is not None:
        aged += upgraded
    section = policies_class(registry)
    try:
        made = section.model_validate(tree.data, context={PARTS: Parts(registry)})
    except ValidationError as error:
        return [], problems_from(error, tree, section, registry)
    return list(_rules(made.policies, tree)), []  # type: ignore[attr-defined]  # made at run time


def why_active(house: House, registry: Registry) -> dict[str, str]:
    """Return plugin -> where a house file puts it in use: the line that lists it, or names a policy of its."""
    found = {item.name: origin_of(item.tree, item.path) for item in named_in(house.tree)}
    for rule in house_rules(house, registry)[0]:
        if (owner := registry.plugin_of(rule.policy)) is not None:
            found.setdefault(owner, origin_of(rule.tree, rule.path))
    return found


def rules_of(recipe: Recipe, tree: Tree) -> list[Rule]:
    """Return the policies that a recipe names."""
    return list(_rules(recipe.policies, tree))


def _rules(policies: Iterable[Policy], tree: Tree) -> Iterator[Rule]:
    for index, policy in enumerate(policies):
        yield Rule(policy, tree, ("policies", index))


def misfits(rules: Iterable[Rule], recipe: Recipe) -> Iterator[Problem]:
    """Yield what policies say of a recipe that they do not go together with, as every component may."""
    for rule in rules:
        yield from map(rule.problem, component_problems(rule.policy, recipe))


def against(rules: Iterable[Rule], recipe: Recipe, command: str) -> list[Problem]:
    """Return what is against `command`, and against what it does besides, each sentence of a policy once."""
    commands = list(dict.fromkeys(_asked_for(command, recipe)))
    found = []
    for rule in rules:
        said = [sentence for name in commands for sentence in policy_problems(rule.policy, recipe, name)]
        found += [rule.problem(sentence) for sentence in dict.fromkeys(said)]
    return found


def _asked_for(command: str, recipe: Recipe) -> Iterator[str]:
    """Yield `command`, and what it does besides: what is forbidden at the end of a run is said at its beginning."""
    if command != "explain":  # who is refused must be able to see what the recipe says, and where
        yield command
    if command not in ("check", "train"):
        return
    yield "train"
    if recipe.launch is not None:
        yield "launch"
    if recipe.evaluation.metrics:
        yield "eval"
    if recipe.export:
        yield "export"
