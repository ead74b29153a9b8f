"""What is known of the methods from having run them: `benchmarks/quantizations.py` writes ``facts.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@cache
def transformers_version() -> str:
    """Return the installed version; empty if there is none."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""


@cache
def facts() -> Mapping[str, Any]:
    """Return what was measured, with date, machine and versions; no types if it was for another transformers."""
    file = Path(__file__).with_name("facts.json")
    measured: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"versions": {}}
    same = measured["versions"].get("transformers") == transformers_version()
    return measured if same else {"types": {}}


def refusals(method: str) -> Iterator[str]:
    """Yield a sentence when runs have shown that no adapter trains on the method's weights, whatever the options.

    Nothing is refused that was not measured, nor what depends on the machine or on a package that was missing.
    """
    runs = facts()["types"].get(method, {}).get("runs", [])
    failed = [next((stage for stage in _STAGES if run.get(stage) is False), "") for run in runs]
    if runs and all(failed) and not any(run.get("depends") for run in runs):
        yield f"transformers {transformers_version()}: {method} {_STAGES[failed[0]]}: {runs[0]['reason']}"


_STAGES = {
    "loads": "does not load",
    "trains": "does not train with an adapter",
    "reloads": "cannot be reloaded exactly",
}
