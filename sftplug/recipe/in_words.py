"""The trainer's options that shape a run, in words: the same in the terminal, the plan, the card and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def train_in_words(
    train: Mapping[str, Any], optimizer: str | None = None, schedule: str | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, path in the recipe) of what decides how much is learned of each row: ``("learning rate",
    "0.0002", "train.learning_rate")``.

    `train` is the ``train`` section of a recipe that is loaded, or of a run's record. What it does not say is left out.
    `optimizer` and `schedule` are the names of the components that say it instead, where the recipe has them.
    """
    by_steps, chosen = train.get("max_steps", -1) > 0, {"optim": optimizer, "lr_scheduler_type": schedule}
    for option, name, words in _WORDS:
        if (component := chosen.get(option)) is not None:
            yield name, component, f"{name}.type"
            continue
        value = train.get(option)
        if value is not None and option != ("num_train_epochs" if by_steps else "max_steps"):
            yield name, words(value), f"train.{option}"


def chosen_names(recipe: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the optimizer and of the schedule in a recipe as plain data; None where it names none."""
    optimizer, schedule = ((recipe.get(section) or {}).get("type") for section in ("optimizer", "schedule"))
    return optimizer, schedule


def numbers_in_words(quantization: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (name, value, path in the recipe) of the numbers that weights are held in, and are computed with if others.

    `quantization` is that section of a recipe, as plain data.
    """
    for option, name in (("type", "quantization"), ("compute_dtype", "computes in")):
        if quantization.get(option):
            yield name, str(quantization[option]), f"quantization.{option}"


def _warmup(value: float) -> str:
    """Return what a number of updates, or a share of them below 1, means."""
    if not value:
        return "none"
    return f"over {value:g} updates" if value >= 1 else f"over {value * 100:g}% of the updates"


_WORDS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("learning_rate", "learning rate", lambda value: f"{value:g}"),
    ("lr_scheduler_type", "schedule", str),
    ("warmup_steps", "warmup", _warmup),
    ("optim", "optimizer", str),
    ("num_train_epochs", "epochs", lambda value: f"{value:g}"),
    ("max_steps", "updates", lambda value: f"{value:,}"),
    ("per_device_train_batch_size", "rows of a batch", lambda value: f"{value:,}"),
    ("gradient_accumulation_steps", "batches to an update", lambda value: f"{value:,}"),
)
"""Option -> what it is called, and what its value is."""
