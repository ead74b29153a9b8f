"""What is known of PEFT's types from having run them: `benchmarks/adapters.py` writes ``facts.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@cache
def facts() -> Mapping[str, Any]:
    """Return what was measured, with date, machine and versions; no types if it was for another PEFT."""
    file = Path(__file__).with_name("facts.json")
    measured: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"versions": {}}
    try:
        same = measured["versions"].get("peft") == version("peft")
    except PackageNotFoundError:
        same = False
    return measured if same else {"types": {}}


def refusals(name: str, quantization: str) -> Iterator[str]:
    """Yield a sentence when runs have shown that the type does not work on the quantization.

    Nothing is refused that was not measured: another version of PEFT, a new type, a quantization left out; nor what
    depends on the machine, on a package that was missing, or on the learning rate.
    """
    measured = facts()["types"].get(name, {}).get("bases", {})
    run = measured.get(quantization, {})
    failed = next((stage for stage in _STAGES if run.get(stage) is False), None)
    if failed and not run.get("depends"):
        works = ", ".join(base for base, other in measured.items() if other.get("reloads"))
        hint = f" It works on {works}." if works else ""
        yield f"peft {facts()['versions']['peft']}: {name} {_STAGES[failed]} {quantization}: {run['reason']}.{hint}"


_STAGES = {"loads": "does not load on", "trains": "does not train on", "reloads": "cannot be reloaded exactly on"}


def resume_refusals(name: str, quantization: str) -> Iterator[str]:
    """Yield a sentence when runs have shown that one that resumes from a checkpoint is another one, or none."""
    run = facts()["types"].get(name, {}).get("bases", {}).get(quantization, {})
    if run.get("resumes") is False:
        yield (
            f"peft {facts()['versions']['peft']}: a run of {name} on {quantization} cannot resume from a checkpoint: "
            f"{run['resume_reason']}. With `train.save_strategy: no` and no other `train.save_*` it trains, and begins "
            "anew when it is killed."
        )


def merge_refusals(name: str) -> Iterator[str]:
    """Yield a sentence when runs have shown that the type cannot be merged, not even into fp32 weights.

    What PEFT says of one model only, such as that its layers have no bias, it says again when it is asked to merge.
    """
    run = facts()["types"].get(name, {}).get("bases", {}).get("fp32", {})
    if run.get("merges") is False and run["reason"].startswith(("NotImplementedError", "logits")):
        yield f"peft {facts()['versions']['peft']}: {name} cannot be merged: {run['reason']}"


def adapts_linear_layers(name: str) -> bool:
    """Whether PEFT's own choice of modules for this type is linear layers, and it trains with ``all-linear`` too."""
    return bool(facts()["types"].get(name, {}).get("all_linear"))
