"""Assistant turns as they are found, and what the check found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftplug.data.render.check import Finding, check_order, quote
from sftplug.data.render.rendered import Span
from sftplug.data.render.spans import Start


@dataclass(slots=True)
class Turn:
    """An assistant turn as found so far."""

    message: int
    spans: list[tuple[int, int]]
    start: Start
    findings: list[Finding]

    @property
    def divergent(self) -> bool:
        """Whether inference would render the turn, or what comes before it, differently."""
        return any(finding.kind.startswith("divergent") for finding in self.findings)


def divergence(start: Start, message: int) -> Iterator[Finding]:
    """Yield a finding where inference would show something else before the turn."""
    if start.diverges == "header":
        text = f"message {message}: its header is {quote(start.header)}; inference prompts with {quote(start.prompt)}."
        yield Finding("divergent_header", "policy", message, text, start.at, start.at)
    if start.diverges == "context":
        text = f"message {message}: what stands before it is not what inference shows the model."
        yield Finding("divergent_context", "policy", message, text, start.at, start.at)


def spans_of(turns: Sequence[Turn]) -> list[Span]:
    """Return the spans of all turns, in order."""
    return [Span(start, end, turn.message) for turn in turns for start, end in turn.spans]


def all_findings(turns: Sequence[Turn]) -> Iterator[Finding]:
    """Yield what was found in each turn, and in their order."""
    for turn in turns:
        yield from turn.findings
    yield from check_order([(*span, turn.message) for turn in turns for span in turn.spans])
