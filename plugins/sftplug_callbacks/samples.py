"""Answers of the model to fixed prompts: before training, while it goes on, and after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from sftplug import Callback, Field, Recipe

_STEPS = re.compile(r"([1-9][0-9]*) steps?")
Every = Annotated[str, Field(pattern=rf"^(epoch|{_STEPS.pattern})$")]


class Samples(Callback):
    """Answer fixed prompts before, during and after training, and show how the answers change.

    The training is the same with it as without it, to the last bit: nothing random is drawn, no gradient is touched.
    """

    type: Literal["samples"] = "samples"
    prompts: list[str] = Field(min_length=1, examples=[["Tell me the capital of Egypt."]])
    """What the model is asked; best what the training rows do not hold."""
    every: Every | None = Field(None, examples=["50 steps", "epoch"])
    """Answer during training too: ``50 steps`` or ``epoch``; null answers before and after it only."""
    chat: bool = True
    """Render each prompt as a user's message; false continues it as plain text."""
    max_new_tokens: int = Field(32, gt=0)
    """Longest answer, in tokens."""
    shorthand: ClassVar[str] = "prompts"

    @property
    def steps(self) -> int | None:
        """So many steps lie between two answers; None where steps are not counted."""
        found = _STEPS.fullmatch(self.every or "")
        return int(found[1]) if found else None

    def check(self, recipe: Recipe) -> Iterator[str]:
        """A prompt that is asked twice has two answers, and no way to tell them apart."""
        others = [callback for callback in recipe.callbacks if isinstance(callback, Samples)]
        prompts = [prompt for callback in others for prompt in callback.prompts]
        twice = [prompt for prompt in dict.fromkeys(self.prompts) if prompts.count(prompt) > 1]
        if twice:
            yield f"`prompts` asks {twice[0]!r} more than once. Once is enough: the answers are told apart by prompt."

    def trainer_callback(self) -> Any:
        """Return the callback for the trainer."""
        from sftplug_callbacks.generate import SampleCallback

        return SampleCallback(self)
