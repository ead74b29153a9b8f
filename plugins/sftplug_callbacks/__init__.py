"""Callbacks: what watches the training loop."""

import sftplug
from sftplug_callbacks.early_stopping import EarlyStopping
from sftplug_callbacks.loss_by import LossBy
from sftplug_callbacks.samples import Samples


@sftplug.hookimpl
def sftplug_callbacks() -> list[type[sftplug.Callback]]:
    """Offer the built-in callbacks."""
    return [EarlyStopping, LossBy, Samples]


@sftplug.hookimpl
def sftplug_trainer_created(recipe: sftplug.Recipe, trainer: sftplug.RunTrainer) -> None:
    """Tell callbacks that keep samples where they are reported to: only the trainer knows its trackers."""
    if any(isinstance(callback, Samples) for callback in recipe.callbacks):
        from sftplug_callbacks.generate import SampleCallback, trackers_of

        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, SampleCallback):
                callback.trackers = trackers_of(trainer)
