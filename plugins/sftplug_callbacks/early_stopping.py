"""End the training when the held-out rows get no better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from sftplug import Callback, Field, Recipe


class EarlyStopping(Callback):
    """End the training when evaluation after evaluation brings no improvement; the best checkpoint becomes the result.

    Prechelt 1998, "Early Stopping - But When?".
    """

    type: Literal["early_stopping"] = "early_stopping"
    patience: int = Field(3, gt=0)
    """How many evaluations in a row may bring no improvement; the training ends after the last of them."""
    threshold: float = Field(0.0, ge=0, allow_inf_nan=False)
    """What is better than the best value so far by no more than this is not an improvement."""
    metric: str = Field("loss", min_length=1, examples=["loss", "loss/reasoning"])
    """What evaluations measure: ``loss``, or what a callback such as `loss_by` adds, with or without ``eval_``."""
    greater_is_better: bool | None = None
    """Whether more of the metric is better; null means that it is, unless it is a loss."""
    restore_best: bool = True
    """Save the weights of the best checkpoint, not those of the last step. A checkpoint is then written at every
    evaluation. False saves the last weights; the checkpoints that ``train.save_strategy`` wants are there all the
    same."""
    shorthand: ClassVar[str] = "patience"

    @property
    def watched(self) -> str:
        """The metric as the log names it."""
        return f"eval_{self.metric.removeprefix('eval_')}"

    def train_options(self, recipe: Recipe) -> dict[str, Any]:
        """Let the trainer note the best value, and keep and load its checkpoint."""
        greater = "loss" not in self.metric if self.greater_is_better is None else self.greater_is_better
        options = {"metric_for_best_model": self.watched, "greater_is_better": greater}
        if not self.restore_best:
            return options
        options |= {"load_best_model_at_end": True}
        if recipe.train.get("eval_strategy") == "steps":
            options |= {"save_strategy": "steps", "save_steps": _interval(recipe)}
        return options

    def check(self, recipe: Recipe) -> Iterator[str]:
        """Say what there is to evaluate, and when; without that, the training would never end early."""
        if not (recipe.data.eval or recipe.data.eval_fraction):
            yield "needs held-out rows to watch. Name some in `data.eval`, or set `data.eval_fraction`."
        if recipe.train.get("eval_strategy", "epoch") == "no":
            yield "needs evaluations, and `train.eval_strategy` is `no`. Leave it out, or say `steps` or `epoch`."
        if sum(isinstance(callback, EarlyStopping) for callback in recipe.callbacks) > 1:
            yield "is listed more than once, but the training can end only by one metric."
        if "loss/" in self.metric and not any(callback.reads_provenance for callback in recipe.callbacks):
            yield f"watches `{self.metric}`, which no callback of the recipe measures. Add `loss_by`, for one."
        for name, value in self.train_options(recipe).items():
            if not name.startswith("save") and recipe.train.get(name, value) not in (value, self._short(value)):
                yield f"means `train.{name}: {_yaml(value)}`, and the recipe says {_yaml(recipe.train[name])}."
        if self.restore_best:
            yield from _without_checkpoint(recipe)

    @staticmethod
    def _short(value: Any) -> Any:
        return value.removeprefix("eval_") if isinstance(value, str) else value

    def trainer_callback(self) -> Any:
        """Return the callback for the trainer."""
        from sftplug_callbacks.stop import Stopper

        return Stopper(self.patience, self.threshold)


def _interval(recipe: Recipe) -> Any:
    """Return after how many steps the trainer evaluates: as often as the recipe says that it logs, or every ten."""
    return recipe.train.get("eval_steps") or recipe.train.get("logging_steps", 10)


def _without_checkpoint(recipe: Recipe) -> Iterator[str]:
    """Say where an evaluation would leave no checkpoint to go back to."""
    train, remedy = recipe.train, "Leave it out, or set `restore_best: false`."
    evaluated = train.get("eval_strategy", "epoch")
    saved = train.get("save_strategy", evaluated)
    if saved not in (evaluated, "best"):
        yield (
            f"restores the best checkpoint, but checkpoints are saved by `train.save_strategy: {saved}` and evaluated "
            f"by `{evaluated}`. {remedy}"
        )
    elif saved == "steps" and "save_steps" in train and train["save_steps"] % _interval(recipe):
        yield (
            f"restores the best checkpoint, but `train.save_steps: {train['save_steps']}` is not a multiple of "
            f"{_interval(recipe)}, the steps between evaluations. {remedy}"
        )


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
