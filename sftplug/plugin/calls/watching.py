"""Calls of what watches a run: callbacks and metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from sftplug.plugin.calls.check import checked, kind_of, read_only
from sftplug.plugin.errors import plugin_error, plugin_errors

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from sftplug.plugin.components import Callback, Metric
    from sftplug.recipe.model import Recipe
    from sftplug.types.conversation import Reply
    from sftplug.types.tokens import LossSums


def train_options(callback: Callback, recipe: Recipe) -> dict[str, Any]:
    """Return the trainer's options that go with a callback. Raises PluginError for anything but a dict."""
    with plugin_errors(callback, "train_options"):
        answer: object = callback.train_options(read_only(recipe))
    options: dict[str, Any] = checked(callback, "train_options", answer, dict, "a dict of options of `train`")
    return options


def loss_metrics(callback: Callback, sums: LossSums) -> dict[str, float]:
    """Return what a callback logs beside the loss. Raises PluginError for anything but numbers by name."""
    with plugin_errors(callback, "loss_metrics"):
        answer: object = callback.loss_metrics(sums)
    metrics: dict[str, float] = checked(callback, "loss_metrics", answer, dict, "a dict of numbers")
    for name, value in metrics.items():
        if not isinstance(value, int | float) or name == "loss":
            raise plugin_error(
                callback, "loss_metrics", f"must return numbers under names of its own, not {name!r}: {value!r}"
            )
    return metrics


def trainer_callback(callback: Callback) -> TrainerCallback:
    """Return the callback for the trainer. Raises PluginError for anything else."""
    from transformers import TrainerCallback

    with plugin_errors(callback, "trainer_callback"):
        answer: object = callback.trainer_callback()
    return checked(callback, "trainer_callback", answer, TrainerCallback, "an instance of TrainerCallback")


def metric_label(metric: Metric) -> str:
    """Return what a metric's results are called. Raises PluginError for anything but a text."""
    with plugin_errors(metric, "label"):
        answer: object = metric.label
    text = str(checked(metric, "label", answer, str, "text"))
    if not text.strip():
        raise plugin_error(metric, "label", "must return a name, and returned an empty text")
    return text


def metric_scores(metric: Metric, replies: Sequence[Reply]) -> list[float]:
    """Return the score of each reply. Raises PluginError for anything but a finite number for each, naming the row."""
    with plugin_errors(metric, "scores"):
        answer: object = metric.scores(replies)
        scores = list(answer) if isinstance(answer, Iterable) and not isinstance(answer, str | Mapping) else None
    if scores is None:
        raise plugin_error(metric, "scores", f"must return a list of numbers, not {kind_of(answer)}")
    if len(scores) != len(replies):
        text = (
            f"must return a number for each of the {len(replies)} replies, in their order, and returned {len(scores)}"
        )
        raise plugin_error(metric, "scores", text)
    for reply, score in zip(replies, scores, strict=True):
        if not isinstance(score, Real):
            text = f"must return numbers, and for {reply.origin} returned {kind_of(score)}: make it a float"
            raise plugin_error(metric, "scores", text)
        if not math.isfinite(score):
            text = (
                f"gave {reply.origin} the score {float(score)}: return a finite number, 0.0 for what is worth nothing"
            )
            raise plugin_error(metric, "scores", text)
    return [float(score) for score in scores]
