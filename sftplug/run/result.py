"""What a run leaves: a whole model, or an adapter; and how to train on from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from sftplug.recipe.adapter_base import OWN, is_adapter
from sftplug.util.arguments import argument

PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "CARTRIDGE")
"""PEFT's types that train a prompt, which no weight can stand for."""


def how_to_train_on(path: Path, cannot_merge: Sequence[str] = ()) -> str:
    """Return how to train on from the result of the run in `path`; `cannot_merge` says why an adapter stays one."""
    if not is_adapter(path):
        return f"To train on from its weights: `model: {path}`, and another {argument('--output')}."
    if not (path / OWN).is_file():
        on = f"To train on its adapter: `model: {path}`, and another {argument('--output')}"
        if cannot_merge:
            return f"{on}. It cannot become part of the weights: {cannot_merge[0]}"
        return f"{on}; with `model.merge_adapter: true` that becomes part of the weights, and a new one is trained."
    if cannot_merge:
        return f"It cannot be trained on: an adapter must be merged for that, and {cannot_merge[0]}"
    merged = f"{path}-merged"
    return (
        f"To train on from it: `sftplug merge {quote(str(path))} --output {quote(merged)}`, then `model: {merged}` and "
        f"another {argument('--output')}."
    )
