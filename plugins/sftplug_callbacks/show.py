"""Show what the loss is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich
from transformers import TrainerCallback  # noqa: TID253 - loaded only when a trainer exists


class ShowSplit(TrainerCallback):  # type: ignore[misc]
    """Prints a line for each evaluation, and about ten for the training."""

    def __init__(self) -> None:
        self._next = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Print the losses of the kinds of token that were logged."""
        logs = logs or {}
        if not state.is_world_process_zero:
            return
        if "eval_loss" in logs:
            self._show(state, "eval loss", _split(logs, "eval_loss/"))
        elif "loss" in logs and (state.global_step >= self._next or state.global_step >= state.max_steps):
            self._next = state.global_step + max(state.max_steps // 10, 1)
            self._show(state, "loss", _split(logs, "loss/"))

    @staticmethod
    def _show(state: Any, what: str, split: Mapping[str, float]) -> None:
        if split:
            parts = "  ".join(f"{name} {value:.4f}" for name, value in split.items())
            text = f"step {state.global_step}/{state.max_steps}  {what} of  {parts}"
            rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)


def _split(logs: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): float(value) for name, value in logs.items() if name.startswith(prefix)}
