from typing import Literal

from sftplug import Field, Recipe, RecipeSection, RunResult, hookimpl


class TokenPrice(RecipeSection):
    """What the tokens of a training cost."""

    type: Literal["token_price"] = "token_price"
    per_million: float = Field(0.5, gt=0)
    """Price of a million tokens."""


@hookimpl
def sftplug_recipe_sections() -> list[type[RecipeSection]]:
    return [TokenPrice]


@hookimpl
def sftplug_run_finished(recipe: Recipe, result: RunResult) -> None:
    cost = recipe.section(TokenPrice).per_million * result.tokens / 1e6
    (result.output / "cost.txt").write_text(f"{cost:.6f}\n")
