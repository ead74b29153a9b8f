"""What is trained, family by family, written by hand and without Jinja.

Each reference builds the text and the trained spans of a conversation by plain concatenation: `Page.say` adds text
that is not trained, `Page.train` adds what the model itself must produce at inference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Messages = Sequence[Mapping[str, Any]]


@dataclass
class Page:
    """A text under construction, with its trained spans."""

    text: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)

    def say(self, text: str) -> "Page":
        self.text += text
        return self

    def train(self, text: str) -> "Page":
        self.spans.append((len(self.text), len(self.text) + len(text)))
        self.text += text
        return self


Reference = Callable[[Messages], Page]
