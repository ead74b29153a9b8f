"""A faulty section of a recipe, or a faulty command, breaks a law, and is told which, and how to fix it."""

import itertools
from typing import Literal

import pytest
import typer
from pydantic import field_validator
from testing.test_faulty import AnyText, broken

from sftplug import Field, RecipeSection
from sftplug.testing import LawBroken, check_command, check_recipe_section

COUNT = itertools.count()


class Bill(RecipeSection):
    """Who pays."""

    type: Literal["bill"] = "bill"
    payer: str = "research"
    """The team."""
    share: float = Field(0.5, gt=0)
    """Its share."""

    def check(self, recipe):
        if recipe.adapter.type == "full":
            yield "a full fine-tuning is paid by nobody."


class Core(Bill):
    """It has the name of a section of sftplug's."""

    type: Literal["train"] = "train"


class Dotted(Bill):
    """It has a name that no key has."""

    type: Literal["the-bill"] = "the-bill"


class Growing(Bill):
    """It takes more each time it is read."""

    @field_validator("share")
    @classmethod
    def _grow(cls, value):
        return value + 0.5


class Secret(Bill):
    """It keeps a secret where everybody reads."""

    api_key: str = "abc"
    """Of the bank."""


class OneText(Bill):
    """It returns a sentence for a list of them."""

    def check(self, recipe):
        return "never"


class Moody(Bill):
    """It says what it feels like."""

    def check(self, recipe):
        return [f"not the {next(COUNT)}th time"]


def test_sections():
    check_recipe_section(Bill, payer="support")
    assert broken(check_recipe_section, Core) == (
        "is_named",
        AnyText("as a section of sftplug's own is: choose another"),
    )
    assert broken(check_recipe_section, Dotted) == (
        "is_named",
        AnyText("use letters, digits and `_`, and a letter first"),
    )
    assert broken(check_recipe_section, Growing) == ("survives_yaml", AnyText("let validators accept what they return"))
    assert broken(check_recipe_section, Secret, api_key="hunter2") == (
        "is_recorded",
        AnyText("secrets by the environment"),
    )
    law = "says_what_does_not_fit"
    assert broken(check_recipe_section, OneText) == (law, AnyText("must yield sentences, or return a list of them"))
    assert broken(check_recipe_section, Moody) == (law, AnyText("| go by the options and the recipe alone."))


def described(run: str, most: int = 3) -> None:
    """Do it."""


def silent(run: str) -> None: ...


def strange(run: int | str) -> None:
    """Do it to what no command line can say."""


def test_commands():
    check_command("count-rows", described)
    team = typer.Typer(help="What the team does.")
    team.command()(described)
    team.callback()(lambda: None)
    check_command("team", team)

    def breaks(name, run):
        with pytest.raises(LawBroken) as caught:
            check_command(name, run)
        return caught.value.law, caught.value.found

    assert breaks("train", described) == ("is_offered", "sftplug has a command 'train'")
    assert breaks("two words", described)[0] == "is_offered"
    assert breaks("list", ["a"])[0] == "is_offered"
    assert breaks("silent", silent) == ("is_told", "`sftplug silent --help` would not say what it does")
    law, found = breaks("strange", strange)
    assert law == "is_told"
    assert "Union types" in found
