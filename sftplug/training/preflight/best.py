"""Whether the best checkpoint can be told: by a metric that evaluations measure, and saved when it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftplug.errors import did_you_mean
from sftplug.plugin.calls import label, loss_metrics, metric_label, train_options

if TYPE_CHECKING:
    from trl import SFTConfig

    from sftplug.recipe.model import Recipe

_ALWAYS = ("loss", "runtime", "samples_per_second", "steps_per_second")
"""What every evaluation measures."""


def problems_of_best(recipe: Recipe, arguments: SFTConfig) -> Iterator[str]:
    """Yield a sentence for a metric that no evaluation will hold, which the trainer would miss after the first one."""
    schedule = arguments.lr_scheduler_type.value
    wanted = {
        "train.load_best_model_at_end": arguments.load_best_model_at_end,
        "train.save_strategy": arguments.save_strategy.value == "best",
        "train.lr_scheduler_type": schedule in ("reduce_lr_on_plateau", "greedy"),
        "train.metric_for_best_model": bool(recipe.train.get("metric_for_best_model")),
    }
    asks = next((name for name, asked in wanted.items() if asked), None)
    if asks is None:
        return
    if arguments.eval_strategy.value == "no":
        yield f"{asks}: goes by what is measured of held-out rows, and none are: set `data.eval_fraction`."
        return
    if arguments.metric_for_best_model is None:
        yield f"{asks}: best by what? Set `train.metric_for_best_model: loss`."
    elif (problem := _unmeasured(recipe, arguments.metric_for_best_model)) is not None:
        yield f"{_who_says(recipe)}: {problem}"


def _who_says(recipe: Recipe) -> str:
    """Return where in the recipe the metric is chosen: in `train`, or by a callback."""
    option = "metric_for_best_model"
    for index, callback in enumerate(recipe.callbacks):
        if option not in recipe.train and option in train_options(callback, recipe):
            return f"callbacks[{index}]"
    return f"train.{option}"


def _unmeasured(recipe: Recipe, metric: str) -> str | None:
    """Return why no evaluation will measure `metric`; None if one does."""
    name = metric.removeprefix("eval_")
    replies = [metric_label(part) for part in recipe.evaluation.metrics]
    if name in replies:
        return (
            f"`{name}` is measured of replies, when training is over, and not in evaluations. Watch `loss`, or what "
            f"the "
            "callback `loss_by` measures."
        )
    known = measured(recipe)
    tags = {tag for source in (*recipe.data.train, *recipe.data.eval) for tag in source.tags}
    if name in known or any(name.startswith(f"loss/{tag}/") for tag in tags):  # of tags, rows alone know the values
        return None
    listed = (
        ", ".join(sorted(known)) if len(known) < 40 else f"{', '.join(_ALWAYS)} and {len(known) - len(_ALWAYS)} more"
    )
    return f"no evaluation measures `{name}`.{did_you_mean(name, known)} They measure {listed}."


def measured(recipe: Recipe) -> set[str]:
    """Return the names of all that an evaluation may measure, without ``eval_``.

    What callbacks make of the loss depends on the rows: this is what they make of rows with every role and part.
    """
    names = set(_ALWAYS)
    readers = [callback for callback in recipe.callbacks if callback.reads_provenance]
    if not readers:
        return names
    import numpy as np

    from sftplug.training.loss_sums import short_names
    from sftplug.types.tokens import PARTS, ROLE_CODES, LossSums

    sources = [label(source.source) for source in (recipe.data.eval or recipe.data.train)]
    ones = np.ones((len(sources), len(ROLE_CODES), len(PARTS)))
    sums = LossSums(ones, ones, tuple(short_names(sources)))
    return names.union(*(loss_metrics(callback, sums) for callback in readers))
