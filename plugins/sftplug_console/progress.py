"""The training loop's progress: loss, tokens a second, time left."""

from __future__ import annotations

import time
from typing import Any

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback  # noqa: TID253 - loaded only when a trainer exists


class TrainingProgress(TrainerCallback):  # type: ignore[misc]
    """A bar on a terminal; a line now and then elsewhere."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._console = rich.get_console()
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bars = Progress(*columns, console=self._console, transient=True)
        self._started = 0.0
        self._said = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show in how many processes it runs, and how they share the work."""
        self._console.print(self._trainer.in_force, highlight=False)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar at the first step: what callbacks do before is not training."""
        if not self._started:
            self._started = time.monotonic()
            self._task = self._bars.add_task("", total=state.max_steps, completed=state.global_step)
            if self._console.is_terminal:
                self._bars.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=state.global_step, description=self._said)
        if state.global_step >= state.max_steps:
            self._take_away()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Remember the loss and the speed; print them where there is no bar."""
        logs = logs or {}
        if "loss" in logs:
            speed = logs.get("num_tokens", 0) / max(time.monotonic() - self._started, 1e-9)
            self._said = f"loss {float(logs['loss']):.4f}  {speed:,.0f} tokens/s"
            if not self._console.is_terminal and _is_due(state):
                self._console.print(f"step {state.global_step}/{state.max_steps}  {self._said}")
        if "eval_loss" in logs:
            self._console.print(f"step {state.global_step}/{state.max_steps}  eval loss {float(logs['eval_loss']):.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self._take_away()

    def _take_away(self) -> None:
        if self._console.is_terminal:  # elsewhere it never started, and stopping it would print an empty line
            self._bars.stop()


def _is_due(state: Any) -> bool:
    """About ten lines a run are enough where nobody watches a bar."""
    every = max(state.max_steps // 10, 1)
    return bool(state.global_step % every == 0 or state.global_step == state.max_steps)
