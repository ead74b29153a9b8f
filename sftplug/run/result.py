"""What a run leaves: a whole model, or an adapter; and how to train on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from sftplug.errors import ModelError
from sftplug.util.arguments import argument

ADAPTER = "adapter_config.json"
"""The file that tells an adapter from a whole model."""
OWN = "sftplug_adapter.json"
"""That of an adapter that is no type of PEFT: its type and options, and its base."""
PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "CARTRIDGE")
"""PEFT's types that train a prompt, which no weight can stand for."""


def how_to_train_on(path: Path, cannot_merge: Sequence[str] = ()) -> str:
    """Return how to train on from the result of the run in `path`; `cannot_merge` says why an adapter stays one."""
    if not is_adapter(path):
        return f"To train on from its weights: `model: {path}`, and another {argument('--output')}."
    if cannot_merge:
        return f"It cannot be trained on: an adapter must be merged for that, and {cannot_merge[0]}"
    merged = f"{path}-merged"
    return (
        f"To train on from it: `sftplug merge {quote(str(path))} --output {quote(merged)}`, then `model: {merged}` and "
        f"another {argument('--output')}."
    )


def is_adapter(path: Path) -> bool:
    """Whether the folder `path` holds an adapter rather than a whole model: one of PEFT, or one that saves itself."""
    return (path / ADAPTER).is_file() or (path / OWN).is_file()


def adapter_config(path: Path) -> Mapping[str, Any]:
    """Return what was written of the adapter in the folder `path`. Raises ModelError when it cannot be read."""
    file = path / (OWN if (path / OWN).is_file() else ADAPTER)
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(known, dict):
        raise ModelError(f"{file} is damaged: it holds no object.")
    return known
