"""What a model generated, read back into a message."""

from __future__ import annotations

from dataclasses import dataclass

from sftplug.types.conversation import Message


@dataclass(frozen=True, slots=True)
class Decoded:
    """A reply that was read back: the message whose render is the text that the model generated."""

    message: Message
    """The assistant's: content, reasoning and tool calls. Where there is a `problem`, all is its content
    but a thought that is whole."""
    text: str
    """The text that was read, with the stop that ends it."""
    stopped: bool
    """Whether a stop ends it; otherwise the generation was cut, perhaps within a thought or the content."""
    exact: bool
    """Whether the template renders this text, character by character; otherwise white space differs, or the order
    of a call's keys, or the template leaves the thought out, or there is a `problem`."""
    problem: str = ""
    """What was not understood, in words; empty for a text that was."""
    untyped: tuple[str, ...] = ()
    """Arguments, as ``tool.argument``, that may be texts as well: the template writes ``3`` and ``"3"`` alike, and no
    schema among the tools says which it is. They were read as JSON."""
