"""Time and memory of a training loop: a plugin for `sftplug train`, and a callback for the trainer of anyone else.

What was measured is written as JSON to the file that the environment variable OVERHEAD_RESULT names.
"""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import sftplug


class Clock(TrainerCallback):
    """Notes when each step ended, every loss, and the most memory."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start."""
        self.ends = [_now()]
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the end of a step."""
        self.ends.append(_now())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note a loss."""
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Write what was measured."""
        on_gpu = torch.cuda.is_available()
        peak = (
            torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        steps = [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]
        found = {"steps": steps, "losses": self.losses, "peak": peak}
        Path(os.environ["OVERHEAD_RESULT"]).write_text(json.dumps(found))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@sftplug.hookimpl
def sftplug_trainer_created(trainer: Any) -> None:
    """Watch sftplug's trainer."""
    trainer.add_callback(Clock())
