"""A loss that a plugin has put in the place of the trainer's own: what the recipe says of losses would be void then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sftplug.errors import PluginFault, TrainingError
from sftplug.plugin.errors import describe, place_of, reason

if TYPE_CHECKING:
    from types import TracebackType

    from sftplug.recipe.model import Recipe
    from sftplug.run import RunSession
    from sftplug.training.loss import LossTrainer
    from sftplug.training.trainer import SftplugTrainer


def heed_replaced_loss(recipe: Recipe, trainer: SftplugTrainer, session: RunSession) -> None:
    """Write down and tell that the loss is a plugin's function, if one has replaced it.

    Raises TrainingError where that would leave something of the recipe undone, and for a function that nobody calls.
    """
    if (unheard := trainer.compute_loss_func) is not None:
        raise TrainingError(
            f"the trainer's `compute_loss_func` was set to {place_of(unheard)}, and a run of sftplug does not call it. "
            "Offer the loss as a component, with the hook `sftplug_losses`."
        )
    own = replaced_loss(trainer)
    if own is None:
        return
    void = list(_void(recipe, trainer))
    if void:
        raise TrainingError(
            f"the trainer's `compute_loss` was replaced by {place_of(own)}, so what the recipe says of the loss would "
            f"count for nothing: {'; '.join(void)}. Offer that loss as a component, with the hook `sftplug_losses`, or "
            "leave these out."
        )
    trainer.head = f"none: `compute_loss` was replaced by {place_of(own)}, and what it returns is logged as the loss"
    if session.state.head is not None:
        session.state.head["replaced_by"] = place_of(own)


def replaced_loss(trainer: LossTrainer) -> Callable[..., Any] | None:
    """Return what stands in the place of the trainer's `compute_loss`; None where it is its own."""
    own = getattr(trainer.compute_loss, "__func__", trainer.compute_loss)
    return None if own.__module__.startswith("sftplug.") else own


def _void(recipe: Recipe, trainer: SftplugTrainer) -> Iterator[str]:
    """Yield what of the recipe only the trainer's own loss would do."""
    if trainer.scorer.loss is not None:
        yield describe(trainer.scorer.loss)
    if recipe.loss.head is not None:
        yield describe(recipe.loss.head)
    if "weights" in trainer.train_dataset.column_names:
        yield "the weights of tokens, other than 0 and 1, that `masking` gives"
    yield from (describe(callback) for callback in recipe.callbacks if callback.reads_provenance)


def fault_of(trainer: LossTrainer, error: Exception) -> PluginFault | None:
    """Return `error` as the fault of whoever replaced the loss; None where nobody has, or it is not from there."""
    own, where = replaced_loss(trainer), error.__traceback__
    while own is not None and where is not None and where.tb_frame.f_code is not getattr(own, "__code__", None):
        where = where.tb_next
    if own is None or where is None:
        return None
    return PluginFault(f"{_whose(trainer, own)}: compute_loss() failed: {_said(error, where)}")


def _said(error: Exception, where: TracebackType) -> str:
    """Say what went wrong and where; what called the function is nobody's fault, and no place to look at."""
    whole = error.__traceback__
    try:
        return reason(error.with_traceback(where))
    finally:
        error.__traceback__ = whole


def _whose(trainer: LossTrainer, own: Callable[..., Any]) -> str:
    package = own.__module__.partition(".")[0]
    known = getattr(trainer.callback_handler, "plugins", ())
    plugin = next((item for item in known if item.module.__name__.partition(".")[0] == package), None)
    return f"plugin {plugin}" if plugin is not None else f"the function {place_of(own)}"
