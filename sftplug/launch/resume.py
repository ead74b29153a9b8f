"""Whether a run is resumed as it was begun: with as many processes, which share the work in the same way."""

from __future__ import annotations

from sftplug.errors import RunError
from sftplug.launch.strategy_check import agrees, asked
from sftplug.recipe.model import Recipe
from sftplug.run import Checkpoint
from sftplug.util.processes import world_size


def refuse_other_processes(recipe: Recipe, checkpoint: Checkpoint | None) -> None:
    """Raise RunError when other processes than those that wrote `checkpoint` would resume from it.

    With another number of them, or another strategy, each would have other rows, other random numbers and another part
    of the optimizer: a run that differs from what it was begun as, without a word.
    """
    if checkpoint is None:
        return
    count, strategy = checkpoint.progress.get("processes", 1), checkpoint.progress.get("strategy")
    now, wanted = world_size(), asked(recipe)
    if count == now and (strategy is None or agrees(wanted, strategy, now)):
        return
    how = f"--launch {strategy or 'ddp'},processes={count}" if count > 1 else "no --launch"
    raise RunError(
        f"{checkpoint.path} was written by {_said(count, strategy)}, and {_said(now, wanted)} would resume: with other "
        f"batches and random numbers, it would be another run. Go on with {how}, or start over in another --output."
    )


def _said(count: int, strategy: str | None) -> str:
    known = f" ({strategy})" if strategy not in (None, "none") else ""
    return f"{count} process{'es' * (count != 1)}{known}"
