"""The training loop's progress: loss, tokens a second, time left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback  # noqa: TID253 - loaded only when a trainer exists

from sftplug import NotebookBar, visible

if TYPE_CHECKING:
    from sftplug import RunTrainer

LINES = 10
"""How many lines a run prints where nobody watches a bar."""


class TrainingProgress(TrainerCallback):  # type: ignore[misc]
    """A bar on a terminal and in a notebook; ten lines, evenly over the run, elsewhere."""

    def __init__(self, trainer: RunTrainer) -> None:
        self._trainer = trainer
        self._console = rich.get_console()
        self._notebook = NotebookBar() if self._console.is_jupyter else None
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bars = Progress(*columns, console=self._console, transient=True)
        self._begun = self._starting = self._away = False
        self._lines = self._shown = 0
        self._said, self._said_at = "", 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show in how many processes it runs, what is saved meanwhile, and what computes the loss if not the usual."""
        self._console.print(self._trainer.in_force, highlight=False)
        self._console.print(self._trainer.saves, highlight=False)
        if self._trainer.goes_on:
            self._console.print(self._trainer.goes_on, highlight=False)
        if self._trainer.head:
            self._console.print(f"head of the loss: {visible(self._trainer.head)}", highlight=False, markup=False)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar at the first step: what callbacks do before is not training."""
        if self._begun:
            return
        self._begun, self._lines = True, _tenths(state)
        self._task = self._bars.add_task("", total=state.max_steps, completed=state.global_step)
        if self._console.is_terminal and not self._away:
            self._start()

    def _start(self) -> None:
        """Start the bar; a signal in the midst of that takes it away once it is whole: rich cannot stop half of one."""
        self._starting = True
        self._bars.start()
        self._starting = False
        self._console.show_cursor(True)  # a process that is killed could not bring it back
        if self._away:
            self._bars.stop()

    def _show_notices(self) -> None:
        """Print what has come up since the last time."""
        for sentence in self._trainer.notices[self._shown :]:
            self._console.print(f"note: {visible(sentence)}", highlight=False, markup=False)
        self._shown = len(self._trainer.notices)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar; where there is none, print a line at each tenth of the run, with the loss of its own step."""
        self._bars.update(self._task, completed=state.global_step, description=self._said)
        self._show_notices()
        if self._notebook is not None:
            self._notebook.show(f"training {self._said}", state.global_step, state.max_steps)
        if not control.should_log:
            self._print(state)
        if state.global_step >= state.max_steps:
            self.take_away()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Remember the loss and the speed, over all attempts."""
        logs = logs or {}
        if "loss" in logs:
            speed = logs.get("num_tokens", 0) / max(self._trainer.seconds, 1e-9)
            self._said = f"loss {float(logs['loss']):.4f}  {speed:,.0f} tokens/s"
            self._said_at = state.global_step
            self._print(state)
        if "eval_loss" in logs:
            self._console.print(f"step {state.global_step}/{state.max_steps}  eval loss {float(logs['eval_loss']):.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self._show_notices()
        self.take_away()

    def take_away(self) -> None:
        """Take the bar away for good, and leave nothing of it; also when the run is about to end early."""
        self._away = True
        if (
            self._console.is_terminal and not self._starting
        ):  # elsewhere it never started, and stopping it would print an empty line
            self._bars.stop()
        if self._notebook is not None:
            self._notebook.close()

    def _print(self, state: Any) -> None:
        if self._console.is_terminal or self._notebook is not None or _tenths(state) <= self._lines:
            return
        self._lines = _tenths(state)
        older = f" (at step {self._said_at})" if self._said_at != state.global_step else ""
        said = f"  {self._said}{older}" if self._said else ""
        self._console.print(f"step {state.global_step}/{state.max_steps}{said}")


def _tenths(state: Any) -> int:
    return int(state.global_step * LINES // max(state.max_steps, 1))
