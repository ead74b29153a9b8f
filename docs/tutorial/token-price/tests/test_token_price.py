from pathlib import Path

import pytest
import sftplug
from sftplug.testing import check_recipe_section

import token_price
from token_price import TokenPrice

RECIPE = Path(__file__).parents[1] / "recipe.yaml"


def test_it_keeps_the_laws_of_sections() -> None:
    check_recipe_section(TokenPrice)


def test_a_recipe_has_it_with_its_options() -> None:
    assert sftplug.load(RECIPE, plugins=[token_price]).recipe.section(TokenPrice).per_million == 0.4
    with pytest.raises(sftplug.RecipeError, match="must be greater than 0"):
        sftplug.load(RECIPE, "token_price.per_million=-1", plugins=[token_price])


def test_a_training_is_billed(tmp_path: Path) -> None:
    run = sftplug.train(sftplug.load(RECIPE, f"output={tmp_path / 'run'}", plugins=[token_price]), show=False)
    assert float((run.output / "cost.txt").read_text()) == round(0.4 * run.tokens / 1e6, 6)
