"""Read what a model generates back into a message, by inverting the template that rendered its training rows."""

from sftplug.data.parse.reader import ReplyReader

__all__ = ["ReplyReader"]
