"""The laws of sections that plugins own, in recipes that have them."""

from __future__ import annotations

from typing import Any

from sftplug.plugin.calls import component_problems
from sftplug.plugin.components import RecipeSection
from sftplug.recipe.load import LoadedRecipe
from sftplug.recipe.origins import origins_at
from sftplug.run.record import recorded
from sftplug.testing.component import check_component
from sftplug.testing.law import check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.testing.runs import load_tiny


@proving
def check_recipe_section(component: type[RecipeSection], /, **options: Any) -> None:
    """Hold a section of the recipe to its laws. Raises LawBroken."""
    check_component(component, **options)
    made = make(component, options)
    check(made, LAWS, made)


def is_handed_over(section: RecipeSection) -> None:
    """A recipe that has the section hands over what it says: nothing is lost on the way, and nothing else is in it."""
    found = _recipe_with(section).recipe.section(type(section))
    demand(
        found == section,
        f"a recipe with {shown(section)} handed over {shown(found)}",
        "let validators accept what they return, and let no option depend on when or where it is read.",
    )


def is_recorded(section: RecipeSection) -> None:
    """The record of a run has every option, and from it the section is read again: a run is resumed by its record."""
    loaded = _recipe_with(section)
    written = recorded(loaded.recipe).get(section.type)
    again = type(section).model_validate(written)
    demand(
        again == section,
        f"{shown(section)} was recorded as {shown(written)}, and read again as {shown(again)}",
        "use types that YAML has, and give secrets by the environment: what is named like one is left out of a record.",
    )
    told = {origin.path for origin in origins_at(loaded, section.type)}
    options = {field.alias or name for name, field in type(section).model_fields.items()}
    lacking = {f"{section.type}.{name}" for name in options if not any(_is_in(path, section, name) for path in told)}
    demand(not lacking, f"`sftplug explain` does not show {', '.join(sorted(lacking))}", "see the options' types.")


def says_what_does_not_fit(section: RecipeSection) -> None:
    """Its `check` says sentences, or nothing, of recipes of several sorts, and the same when it is asked again."""
    for recipe in (load_tiny(adapter="full").recipe, load_tiny(adapter="lora", train={"use_cpu": True}).recipe):
        first, again = component_problems(section, recipe), component_problems(section, recipe)
        demand(
            first == again,
            f"it said {shown(first)}, and then {shown(again)}",
            "go by the options and the recipe alone.",
        )


LAWS = (says_what_does_not_fit, is_handed_over, is_recorded)


def _recipe_with(section: RecipeSection) -> LoadedRecipe:
    return load_tiny(adapter="lora", **{section.type: section})


def _is_in(path: str, section: RecipeSection, option: str) -> bool:
    name = f"{section.type}.{option}"
    return path == name or path.startswith((f"{name}.", f"{name}["))
