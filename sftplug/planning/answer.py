"""Whether a run fits, and what to change if not."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from sftplug.planning.fit import Fit
    from sftplug.planning.result import Plan


@dataclass(frozen=True, slots=True, repr=False)
class PlanAnswer:
    """The plan of a run, and whether it fits; printed, it shows itself."""

    plan: Plan
    """What it takes: ``memory``, ``work``, parameters that are trained …"""
    limit: int | None
    """Bytes that it is to fit in; None where that was not asked."""
    fits: bool
    """Whether it does; True where that was not asked."""
    tried: Sequence[Fit]
    """Changes that were tried, laid over each other, where it does not."""
    largest_batch: int | None
    """The most rows of a batch with which it fits."""
    why: str | None
    """Why the rows are not known; None where they are."""
    notes: Sequence[str]
    """What to know besides."""
    in_force: Sequence[tuple[str, str, str]]
    """(name, value, path in the recipe) of what decides how much is learned."""
    origins: Mapping[str, str]
    """Path in the recipe -> where the value comes from."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The sections that `in_force` is of, as plain data."""
    float_experts: int = 0
    """Bytes of the experts of a quantized model that stay floats."""

    @property
    def overrides(self) -> list[str] | None:
        """The changes with which it fits; None where it fits without, or none was found."""
        return list(self.tried[-1].overrides) if self.tried and self.tried[-1].fits else None

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON holds it."""
        return {
            **self.plan.to_dict(),
            "notes": list(self.notes),
            "in_force": {path: self._value(path) for _, _, path in self.in_force},
            "rows_unknown_because": self.why,
            "limit": self.limit,
            "fits": self.fits if self.limit is not None else None,
            "largest_batch": self.largest_batch,
            "tried": [
                {"overrides": list(t.overrides), "total": [t.total.low, t.total.high], "fits": t.fits}
                for t in self.tried
            ],
            "overrides": self.overrides,
        }

    def _value(self, path: str) -> dict[str, Any]:
        section, _, option = path.partition(".")
        return {"value": self.values[section][option], "origin": self.origins[path]}

    def show(self, console: Console) -> None:
        """Print the answer to a rich console."""
        from sftplug.planning.show import show

        show(self, console)

    def __str__(self) -> str:
        """Return what `show` prints."""
        from rich import get_console
        from rich.console import Console

        here, text = get_console(), StringIO()
        # In a notebook a console shows what it prints, whatever file it is given, unless it is told not to.
        marks, colourless = here.is_terminal, here.no_color
        self.show(Console(file=text, width=here.width, force_terminal=marks, force_jupyter=False, no_color=colourless))
        return text.getvalue().rstrip("\n")

    __repr__ = __str__
