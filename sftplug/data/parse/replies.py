"""What a template makes of an assistant's message: the text that the model itself must write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sftplug.data.render import Template
from sftplug.errors import TemplateError, TemplateStopped
from sftplug.types.conversation import Message

Messages = Sequence[Mapping[str, Any]]


class Said(NamedTuple):
    """What the model must write to say a message."""

    text: str
    ends: bool
    """Whether a stop ends it."""
    continues: bool
    """Whether it goes on from what inference shows before it."""
    loses_thought: bool
    """Whether the template leaves the reasoning out."""


def in_parts(message: Message) -> Message:
    """Return a message whose content, a text, is a list of parts."""
    return replace(message, content=[{"type": "text", "text": message.content}])


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a reply is given: after messages, with tools and the other arguments of a template."""

    template: Template
    messages: Messages
    tools: Sequence[Mapping[str, Any]] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    end_tokens: frozenset[str] = frozenset()
    parts: bool = False
    """Whether a content is given to the template as a list of parts."""

    def said(self, message: Message, *after: Mapping[str, Any]) -> Said | None:
        """Return what the model must write to say `message`, if `after` follows it; None where the template refuses."""
        index = len(self.messages)
        if self.parts and isinstance(message.content, str):
            message = in_parts(message)
        messages = [*self.messages, message.to_dict(), *after]
        try:
            rendered = self.template.analyse(messages, self.tools, end_tokens=self.end_tokens, **self.kwargs)
        except TemplateStopped:
            raise
        except TemplateError:
            return None
        text = "".join(rendered.text[span.start : span.end] for span in rendered.spans if span.message == index)
        kinds = {finding.kind for finding in rendered.findings if finding.message == index}
        if not text or "not_located" in kinds:
            return None
        return Said(text, "no_stop" not in kinds, "divergent_header" not in kinds, "dropped_reasoning" in kinds)

    def opening(self) -> str:
        """Return what inference shows after the last text that a message says. Raises TemplateError."""
        rendered = self.template.prompt(self.messages, self.tools, **self.kwargs)
        runs = rendered.runs
        last = runs.own.nonzero()[0]
        if not len(last):
            return rendered.text
        after = int(last[-1]) + 1
        return rendered.text[int(runs.starts[after]) :] if after < len(runs.starts) else ""
