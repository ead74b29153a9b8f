from collections.abc import Iterator
from typing import Literal

from sftplug import Field, Policy, Recipe, hookimpl


class EpochLimit(Policy):
    """Let no training see its rows too often."""

    type: Literal["epoch_limit"] = "epoch_limit"
    most: float = Field(3.0, gt=0)
    """Largest number of epochs."""

    def problems(self, recipe: Recipe, command: str) -> Iterator[str]:
        epochs = recipe.train.get("num_train_epochs", 0)
        if command == "train" and epochs > self.most:
            yield f"`train.num_train_epochs` may be {self.most:g} at most, and is {epochs:g}."


@hookimpl
def sftplug_policies() -> list[type[Policy]]:
    return [EpochLimit]
