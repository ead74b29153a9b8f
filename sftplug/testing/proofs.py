"""Which components have kept the laws of their kind in this process: what `sftplug.testing.examine` goes by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")

CHECK_OF = {
    "source": "check_source",
    "row processor": "check_row_processor",
    "format": "check_format",
    "chat template": "check_template",
    "masking": "check_masking",
    "length policy": "check_length_policy",
    "model builder": "check_component",
    "quantization": "check_quantization",
    "model patch": "check_model_patch",
    "adapter": "check_adapter",
    "head": "check_head",
    "loss": "check_loss",
    "optimizer": "check_optimizer",
    "schedule": "check_schedule",
    "callback": "check_callback",
    "metric": "check_metric",
    "exporter": "check_exporter",
    "policy": "check_policy",
    "section": "check_recipe_section",
    "command": "check_command",
}
"""Kind -> the check that holds all laws of it."""

_kept: dict[tuple[str, Any], set[str]] = {}
"""(check, class of component or name of command) -> the laws that it has kept, all of the check."""
_open: list[set[str]] = []
"""The laws kept so far in each check that is under way."""


def proving(check: Callable[P, None]) -> Callable[P, None]:
    """Note, when a check has ended well, which laws its first argument has kept."""

    @wraps(check)
    def proved(*args: P.args, **kwargs: P.kwargs) -> None:
        _open.append(set())
        try:
            check(*args, **kwargs)
        finally:
            laws = _open.pop()
        _kept.setdefault((check.__name__, args[0]), set()).update(laws)
        note(laws)

    return proved


def note(laws: Iterable[str]) -> None:
    """Note that laws were kept, for the check that is under way."""
    if _open:
        _open[-1].update(laws)


def laws_kept(kind: str, subject: Any) -> list[str]:
    """Return the laws that a component of a kind has kept, where it has kept all; none else. A command is its name."""
    return sorted(_kept.get((CHECK_OF[kind], subject), ()))
