from pathlib import Path

import sftplug
from sftplug.testing import check_policy

from epoch_limit import EpochLimit

RECIPE = Path(__file__).parents[1] / "recipe.yaml"


def test_it_keeps_the_laws_of_policies() -> None:
    check_policy(EpochLimit)


def test_only_a_training_of_too_many_epochs_is_refused() -> None:
    recipe = sftplug.load(RECIPE, "train.num_train_epochs=5", "policies=[]").recipe
    (sentence,) = EpochLimit(most=3).problems(recipe, "train")
    assert sentence == "`train.num_train_epochs` may be 3 at most, and is 5."
    assert list(EpochLimit(most=5).problems(recipe, "train")) == list(EpochLimit(most=3).problems(recipe, "push")) == []
