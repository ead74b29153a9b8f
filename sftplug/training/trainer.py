"""The trainer: TRL's, with a loss and checkpoints of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftplug.run import checkpoints
from sftplug.training.callback_state import states_of, with_states
from sftplug.training.callbacks import Stopwatch
from sftplug.training.loss import LossTrainer

if TYPE_CHECKING:
    from torch import Tensor


class SftplugTrainer(LossTrainer):
    """The trainer of a run: beside the loss, it gives checkpoints what the trainer counts and does not save itself."""

    _tr_loss: Tensor
    _total_loss_scalar: float
    clock: Stopwatch = Stopwatch()
    """Runs while the trainer trains; a checkpoint holds what it says."""
    in_force = ""
    """How the work is shared by processes, as found in the model when training begins."""
    strategy = ""
    """What shares the work, in one word; a checkpoint holds it."""
    saves = ""
    """When checkpoints are saved and which of them are kept, in a sentence, when training begins."""
    head = ""
    """What computes the loss from hidden states, and why that, in a sentence; empty where it is the usual one."""
    notices: list[str]
    """What has come up in training that its owner should know, a sentence each."""
    goes_on = ""
    """Where a finished run goes on that is longer now, and at which rate, in a sentence."""
    when_stopped: Sequence[Callable[[], object]] = ()
    """Called, in the midst of anything, when a signal asks the run to end: who shows how far it is stops that."""
    goes_on_from: Path | None = None
    """The checkpoint that the run resumes from."""

    def _progress(self) -> dict[str, Any]:
        """Return what the trainer counts and sums up between two logs, and does not save itself."""
        return {
            checkpoints.PASSING: self.keep.limit is not None,
            "processes": self.accelerator.num_processes,
            "strategy": self.strategy,
            "seconds": self.clock.seconds,
            "tokens": self._total_train_tokens,
            "loss": float(self._tr_loss),
            "loss_total": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
            "metrics": {name: [float(value) for value in values] for name, values in self._metrics["train"].items()},
            "tally": self.tallies["train"].to_state(),
            "callbacks": states_of(self.callback_handler.callbacks),
            "stopped": self.control.should_training_stop,
        }

    def _load_callback_state(self) -> None:
        """Give the callbacks back the state that they had at the checkpoint; called before they hear of anything."""
        if self.goes_on_from is not None:
            states = checkpoints.read_progress(self.goes_on_from, self.args.process_index)["callbacks"]
            self.callback_handler.callbacks = with_states(self.callback_handler.callbacks, states)

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take up what `_progress` said; called when the trainer has begun to train, for it sets all this to zero."""
        if self.held is not None:
            self.held.go_on()
        if best := self.state.best_model_checkpoint:  # the folder of the run may have been moved
            self.state.best_model_checkpoint = str(Path(self.args.output_dir) / Path(best).name)
        self._total_train_tokens = progress["tokens"]
        # Added, for it is a tensor, and on the device of the trainer.
        self._tr_loss = self._tr_loss + progress["loss"]
        self._total_loss_scalar = progress["loss_total"]
        self._globalstep_last_logged = progress["logged_at"]
        self._initial_global_step = 0  # the mean loss is that of all steps
        self.tallies["train"].from_state(progress["tally"], self.args.device)
        self._metrics["train"].update({name: list(values) for name, values in progress["metrics"].items()})

    @property
    def seconds(self) -> float:
        """Time in the training loop so far, over all attempts."""
        return self.clock.seconds

    @property
    def tokens(self) -> int:
        """Tokens that went through the model so far, padding left out."""
        return int(self._total_train_tokens)

    def mean_loss(self) -> float:
        """Return the mean loss over all steps so far; every process must ask, for each knows a part of it."""
        total = torch.tensor([self._total_loss_scalar], device=self.args.device)
        mean = float(self.accelerator.gather(total).mean())
        steps: int = self.state.global_step
        return mean / max(steps, 1)
