"""Answers of the model to fixed prompts, before and after training."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from sftplug import Callback, Field


class Samples(Callback):
    """Answer fixed prompts before and after training, and show both side by side."""

    type: Literal["samples"] = "samples"
    prompts: list[str] = Field(min_length=1, examples=[["Tell me the capital of Egypt."]])
    """What the model is asked; best what the training rows do not hold."""
    chat: bool = True
    """Render each prompt as a user's message; false continues it as plain text."""
    max_new_tokens: int = Field(32, gt=0)
    """Longest answer, in tokens."""
    shorthand: ClassVar[str] = "prompts"

    def trainer_callback(self) -> Any:
        """Return the callback for the trainer."""
        from sftplug_callbacks.generate import SampleCallback

        return SampleCallback(self)
