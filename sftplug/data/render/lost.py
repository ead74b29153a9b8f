"""What a row says and its text does not hold: dropped by the template, or there but not to be followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from sftplug.data.render.call import Call
from sftplug.data.render.check import Finding, missing_texts, quote
from sftplug.data.render.pieces import REASONING, Layout
from sftplug.data.render.prompts import Prompts
from sftplug.errors import TemplateError

Write = Callable[[Call], str]
"""Renders a call. Raises TemplateError when the template refuses it."""


def missing(layout: Layout, prompts: Prompts) -> list[Finding]:
    """Return a finding for everything that messages say and the text does not hold."""
    lost = [*missing_texts(layout, prompts.call.messages)]
    # From the last on, as the turns: what a longer conversation shows, a shorter one often shows too.
    return [_missing(layout, prompts, *one) for one in reversed(lost)][::-1]


def _missing(layout: Layout, prompts: Prompts, message: int, key: str, text: str) -> Finding:
    role = prompts.call.messages[message].get("role")
    what = f"message {message} ({role}): {key} {quote(text)}"
    # Its words are there, but no piece says so: which of them are its own, and which only look like it, nobody knows.
    if key.startswith("content") and text.strip() in layout.text:
        said = f"{what} is in the text, but cannot be followed there."
        return Finding("provenance_lost", "error", message, said)
    if not key.startswith("tool_calls") and _shown_at_inference(prompts, message, key):
        return Finding("divergent_context", "policy", message, f"{what} is shown at inference, but not here.")
    if key in (REASONING, "thoughts"):
        return Finding("dropped_reasoning", "policy", message, f"{what} is dropped by the template.")
    return Finding("dropped", "error", message, f"{what} is dropped by the template.")


def missing_tools(layout: Layout, call: Call, write: Write) -> Iterator[Finding]:
    """Say so when the text is the same without the tools: the model would call what it was never shown."""
    try:
        # Rendered without tools once more, not searched for: a tool's name may stand in the words of a message as well.
        shown = not call.tools or layout.text != write(replace(call, tools=None))
    except TemplateError:
        # It does not do without them: so it reads them.
        shown = True
    if not shown:
        text = f"the tools of the row ({call.tool_names}) are not in the text: the template leaves them out."
        yield Finding("dropped_tools", "policy", None, text)


def _shown_at_inference(prompts: Prompts, message: int, key: str) -> bool:
    """Whether the model would see the field (or, of its own turn, produce it) in a shorter conversation."""
    own = prompts.call.messages[message].get("role") == "assistant"
    # What an assistant said may be dropped in later turns (thoughts often are), but not where its turn is the last.
    for end in [message + 1] if own else prompts.call.assistants:
        try:
            lost = prompts.loses(end, message, key, asks=not own)
        except TemplateError:
            continue
        if not lost:
            return True
    return False
