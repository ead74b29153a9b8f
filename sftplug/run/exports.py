"""What was exported of a run, and how that compares with the trained model: told by card and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EXPORTS = ("exported by", "options", "read by", "logits apart", "same most likely token", "equal replies")


def export_rows(exports: Mapping[str, Any], steps: int) -> Iterator[tuple[str, ...]]:
    """Yield a line of `EXPORTS` for each engine that read an export of the model as it is after `steps` updates.

    `exports` is what the run keeps. A run that was made longer has another model than the one exported before. Several
    exports of one form are told once, as the last one was.
    """
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for entry in exports.values():
        if entry.get("steps") != steps:
            continue
        how = ", ".join(f"{name}: {value}" for name, value in entry["options"].items())
        for compared in entry["compared"]:
            apart = compared["difference"]
            found[entry["exporter"], how, compared["engine"]] = (
                f"{apart['relative']:.2%} of their deviation",
                f"at {apart['same_top']:.1%} of {apart['positions']:,} positions",
                f"{compared['equal_replies']} of {compared['prompts']}",
            )
    yield from ((*what, *figures) for what, figures in found.items())
