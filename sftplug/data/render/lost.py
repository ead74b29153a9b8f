"""What a row says and its text does not hold: dropped by the template, or there but not to be followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from sftplug.data.render.call import Call, assistants_in
from sftplug.data.render.check import Finding, missing_texts, quote
from sftplug.data.render.pieces import REASONING, Layout
from sftplug.errors import TemplateError

Show = Callable[..., Layout]
"""Renders a call, ``add_generation_prompt`` given by name. Raises TemplateError when the template refuses it."""
Write = Callable[..., str]
"""The same, the text alone."""


def missing(layout: Layout, call: Call, show: Show) -> Iterator[Finding]:
    """Yield a finding for everything that messages say and the text does not hold."""
    for message, key, text in missing_texts(layout, call.messages):
        role = call.messages[message].get("role")
        what = f"message {message} ({role}): {key} {quote(text)}"
        if key.startswith("content") and text.strip() in layout.text:
            said = f"{what} is in the text, but cannot be followed there."
            yield Finding("provenance_lost", "error", message, said)
        elif not key.startswith("tool_calls") and _shown_at_inference(call, message, key, show):
            yield Finding("divergent_context", "policy", message, f"{what} is shown at inference, but not here.")
        elif key in (REASONING, "thoughts"):
            yield Finding("dropped_reasoning", "policy", message, f"{what} is dropped by the template.")
        else:
            yield Finding("dropped", "error", message, f"{what} is dropped by the template.")


def missing_tools(layout: Layout, call: Call, write: Write) -> Iterator[Finding]:
    """Say so when the text is the same without the tools: the model would call what it was never shown."""
    try:
        shown = not call.tools or layout.text != write(replace(call, tools=None))
    except TemplateError:
        shown = True
    if not shown:
        text = f"the tools of the row ({call.tool_names}) are not in the text: the template leaves them out."
        yield Finding("dropped_tools", "policy", None, text)


def _shown_at_inference(call: Call, message: int, key: str, show: Show) -> bool:
    """Whether the model would see the field (or, of its own turn, produce it) in a shorter conversation."""
    own = call.messages[message].get("role") == "assistant"
    for end in [message + 1] if own else assistants_in(call.messages):
        try:
            layout = show(call.until(end), add_generation_prompt=not own)
        except TemplateError:
            continue
        if end > message and not any(lost[:2] == (message, key) for lost in missing_texts(layout, call.messages[:end])):
            return True
    return False
