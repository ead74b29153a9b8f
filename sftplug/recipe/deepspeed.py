"""What a configuration of DeepSpeed, which `train.deepspeed` names or holds, would send or write beside the run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SENDS = {"wandb": "train.report_to: wandb", "comet": "train.report_to: comet_ml"}
"""Section that sends -> what does the same, seen in the recipe."""
_WRITES = ("tensorboard", "csv_monitor", "autotuning")


def leaks_of_deepspeed(value: object) -> Iterator[str]:
    """Yield a sentence for each section of a configuration that sends something, or writes where no run is.

    `value` is what the trainer takes: a dict, the path of a file, JSON, or JSON in base64.
    """
    config = _configuration(value)
    for name, instead in _SENDS.items():
        if _enabled(config, name):
            yield f"its section `{name}` would send what is measured. Leave it out: `{instead}` does so openly."
    for name in _WRITES:
        if _enabled(config, name):
            yield (
                f"its section `{name}` would write files that are not part of the run. Leave it out: "
                "`train.report_to: tensorboard` writes into the run's folder, as `metrics.jsonl` does anyway."
            )
    profiler = config.get("flops_profiler")
    if isinstance(profiler, dict) and profiler.get("output_file"):
        yield "its `flops_profiler.output_file` would be written, no part of the run. Leave it out: it is printed then."


def _enabled(config: dict[str, Any], name: str) -> bool:
    section = config.get(name)
    return isinstance(section, dict) and bool(section.get("enabled", False))


def _configuration(value: object) -> dict[str, Any]:
    """Return a configuration as accelerate reads it; nothing where it is none, which the trainer says."""
    if isinstance(value, dict):
        return value
    try:
        text = Path(str(value)).read_text(encoding="utf-8") if _is_file(str(value)) else _spelled(str(value))
        config = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except OSError:  # JSON is too long for a name
        return False


def _spelled(value: str) -> str:
    return value if value.lstrip().startswith("{") else base64.urlsafe_b64decode(value).decode("utf-8")
