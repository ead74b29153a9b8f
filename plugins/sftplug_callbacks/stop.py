"""Early stopping in the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich
from transformers import EarlyStoppingCallback  # noqa: TID253 - loaded only when a trainer exists

from sftplug import TrainingError


class Stopper(EarlyStoppingCallback):  # type: ignore[misc]
    """transformers' own early stopping; a checkpoint keeps its count, so a resumed run stops where it would have.

    Its questions to the options are asked by the component, before anything is loaded.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take no further step if the checkpoint that the run resumes from is the one at which it stopped."""
        control.should_training_stop = self._over

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **kwargs: Any) -> None:
        """Compare with the best value so far. Raises TrainingError when the metric is not measured."""
        name = args.metric_for_best_model
        if name not in metrics:
            known = ", ".join(sorted(name.removeprefix("eval_") for name in metrics if name != "epoch"))
            raise TrainingError(f"early_stopping watches `{name}`, which evaluations do not measure. They do: {known}.")
        super().on_evaluate(args, state, control, metrics, **kwargs)
        if self._over and state.is_world_process_zero:
            best = f"the best is {state.best_metric:.4f}, after {state.best_global_step} steps"
            rich.get_console().print(
                f"early stopping at step {state.global_step}: no better {name} in "
                f"{self.early_stopping_patience} evaluations; {best}",
                highlight=False,
                soft_wrap=True,
            )

    @property
    def _over(self) -> bool:
        return bool(self.early_stopping_patience_counter >= self.early_stopping_patience)
