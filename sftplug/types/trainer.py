"""The trainer as a plugin sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments


class RunTrainer(Protocol):
    """The trainer of a run: a ``transformers.Trainer``, of which the members of most use are here, and sftplug's own.

    A plugin may add callbacks to it and read it; what it changes beside that changes the run. Who replaces its
    `compute_loss` is responsible for what is trained: a run whose recipe says more of the loss than that is refused.
    """

    model: PreTrainedModel
    """The model that is trained, adapter and all."""
    args: TrainingArguments
    """The trainer's options, those that the recipe leaves open filled in."""
    state: TrainerState
    """How far it is: ``global_step``, ``max_steps``, ``log_history`` …"""
    callback_handler: Any
    """Calls the callbacks, which are its ``callbacks``."""
    in_force: str
    """How processes share the work, as in ``ddp, 2 processes on cuda over nccl``; empty until training begins."""
    saves: str
    """When checkpoints are saved and which of them are kept, in a sentence; empty until training begins."""
    head: str
    """What computes the loss from hidden states, and why that, in a sentence; empty where it is the usual one."""
    notices: list[str]
    """What has come up in training that its owner should know, a sentence each: whoever shows the progress shows it."""
    goes_on: str
    """Where a finished run goes on that is longer now, and at which rate, in a sentence; else empty."""
    when_stopped: Sequence[Callable[[], object]]
    """Called, in the midst of anything, when a signal asks the run to end: who shows how far it is stops that."""

    @property
    def seconds(self) -> float:
        """Time in the training loop so far, over all attempts."""

    @property
    def tokens(self) -> int:
        """Tokens that went through the model so far, padding left out."""

    def is_world_process_zero(self) -> bool:
        """Whether this is the main process: only that one should print or write files."""

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Let `callback` be called too, after those that are there."""
