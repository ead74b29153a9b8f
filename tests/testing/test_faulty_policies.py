"""A faulty policy breaks a law, and is told which, what was found, and how to fix it."""

import itertools
from typing import Literal

from testing.test_faulty import AnyText, broken

from sftplug import Policy
from sftplug.testing import check_policy

COUNT = itertools.count()


class Slow(Policy):
    """It lets nobody train fast."""

    type: Literal["slow"] = "slow"
    most: float = 1e-3
    """Largest rate."""

    def problems(self, recipe, command):
        if command == "train" and recipe.train["learning_rate"] > self.most:
            yield f"the learning rate is above {self.most}"


class OneText(Slow):
    """It returns a sentence for a list of them."""

    def problems(self, recipe, command):
        return "never"


class Numbers(Slow):
    """It returns what is no sentence."""

    def problems(self, recipe, command):
        return [404]


class Closed(Slow):
    """It knows the commands of today."""

    def problems(self, recipe, command):
        return {"push": ["no"]}[command] if command not in ("check", "train") else []


class Helpful(Slow):
    """It mends what it finds."""

    def problems(self, recipe, command):
        recipe.train["learning_rate"] = self.most
        return []


class Moody(Slow):
    """It says what it feels like."""

    def problems(self, recipe, command):
        return [f"not the {next(COUNT)}th time"]


def test_policies():
    check_policy(Slow)
    law = "answers_for_every_command"
    assert broken(check_policy, OneText) == (law, AnyText("must yield sentences, or return a list of them, not str"))
    assert broken(check_policy, Numbers) == (law, AnyText("must yield sentences, or return a list of them, not list"))
    assert broken(check_policy, Closed) == (law, AnyText("problems() failed: KeyError: 'prepare'"))
    assert broken(check_policy, Helpful) == (law, AnyText("a recipe cannot be changed once it is loaded"))
    assert broken(check_policy, Moody) == ("says_the_same_again", AnyText("| go by options, recipe and command"))
