from typing import Any, Literal

from sftplug import Field, Optimizer, TrainedParameters, hookimpl, require


class SlowTables(Optimizer):
    """AdamW that moves embeddings and head, which hold a row for each token, more slowly than the rest."""

    type: Literal["slow_tables"] = "slow_tables"
    tables: float = Field(0.1, gt=0)
    """What the learning rate of embeddings and head is multiplied by."""

    def optimizer(self, trained: TrainedParameters, learning_rate: float) -> Any:
        groups = trained.groups(p for p in trained.parameters if not p.table)
        groups += trained.groups((p for p in trained.parameters if p.table), lr=self.tables * learning_rate)
        return require("torch", needed_by="optimizer slow_tables").optim.AdamW(groups, lr=learning_rate)


@hookimpl
def sftplug_optimizers() -> list[type[Optimizer]]:
    return [SlowTables]
