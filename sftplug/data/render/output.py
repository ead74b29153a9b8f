"""The text of a prompt, put together from what ran for it and what other renders had printed already."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sftplug.data.render.pieces import Piece

_TAIL = 256
"""So many characters at a time are looked through for white space."""


class Part(NamedTuple):
    """A stretch of an output that came from one place."""

    at: int
    source: PromptText
    """The output itself, or another."""
    start: int
    end: int
    """Where it stands there."""


class PromptText:
    """A text that begins as a conversation's does, for as long as nothing else was printed."""

    def __init__(self, conversation: str) -> None:
        """Begin an empty text, to be compared with `conversation`."""
        self.length = self.shared = 0
        """How long it is, and how much of that is the beginning of `conversation`."""
        self._conversation = conversation
        self._parts: list[Part] = []
        self._texts: list[str] = []
        self._starts: list[int] = []
        self._copied, self._joined = False, ""
        self._said: list[Piece] = []
        self._said_ends: list[int] = []
        self._said_by: dict[int | None, list[Piece]] = {}

    def add(self, text: str, pieces: Sequence[Piece] = ()) -> None:
        """Print `text`; of its `pieces` those are remembered that a message says."""
        text = str.__str__(text)
        # Once something else was printed than the conversation has there, nothing that follows counts as shared.
        if self.shared == self.length:
            whole = self._conversation.startswith(text, self.length)
            self.shared += len(text) if whole else agreement(self._conversation, text, self.length)
        said = [piece for piece in pieces if piece.field]
        self._said += said
        self._said_ends += [piece.end for piece in said]
        for piece in said:
            self._said_by.setdefault(piece.message, []).append(piece)
        if text or said:
            self._append(Part(self.length, self, self.length, self.length + len(text)), text)

    def copy(self, source: PromptText, start: int, end: int) -> None:
        """Print what `source` ran to print from `start` to `end`."""
        if self.shared == self.length:
            # It stood at the same place there, so it has been compared with the conversation already.
            if start == self.length and start <= source.shared:
                self.shared = min(end, source.shared)
            else:
                text = source.text(start, end)
                self.shared += agreement(self._conversation, text, self.length)
        self._copied = True
        self._append(Part(self.length, source, start, end), "")

    def repeat(self, source: PromptText, start: int, end: int) -> None:
        """Print the same as a text of its own, which others can copy."""
        by = self.length - start
        first, last = bisect_left(source._said_ends, start), bisect_right(source._said_ends, end)
        said = [piece for piece in source._said[first:last] if piece.start >= start]
        self.add(source.text(start, end), [_moved(piece, by) for piece in said])

    def _append(self, part: Part, text: str) -> None:
        self._parts.append(part)
        self._texts.append(text)
        self._starts.append(part.at)
        self.length += part.end - part.start

    def text(self, start: int, end: int | None = None) -> str:
        """Return what stands from `start` to `end`, or to the end of all."""
        end = self.length if end is None else end
        # Texts of its own are joined once. What is copied from others may be long, so only the part asked for is put
        # together.
        if not self._copied:
            if len(self._joined) != self.length:
                self._joined = "".join(self._texts)
            return self._joined[start:end]
        return "".join(self._texts_between(start, end))

    def _texts_between(self, start: int, end: int) -> Iterator[str]:
        for index in range(max(bisect_right(self._starts, start) - 1, 0), bisect_left(self._starts, end)):
            at, source, begin, stop = self._parts[index]
            low, high = max(start - at, 0), min(end - at, stop - begin)
            yield self._texts[index][low:high] if source is self else source.text(begin + low, begin + high)

    def around(self, message: int, before: int) -> tuple[list[Piece], str]:
        """Return what `message` says here, and the text around it.

        That text begins `before` characters ahead of it, white space ahead of it left out of account.
        """
        found = {
            _moved(piece, part.at - part.start): None
            for part in self._parts
            for piece in part.source._said_by.get(message, ())
            if part.start <= piece.start and piece.end <= part.end
        }
        if not found:
            return [], ""
        start = max(self.stripped(next(iter(found)).start) - before, 0)
        moved = [_moved(piece, -start) for piece in found]
        return moved, self.text(start, moved[-1].end + start)

    def stripped(self, end: int) -> int:
        """Return how long its first `end` characters are without white space at their end."""
        while end > 0 and not (tail := self.text(max(end - _TAIL, 0), end).rstrip()):
            end -= _TAIL
        return max(end - _TAIL, 0) + len(tail) if end > 0 else 0

    def said(self) -> int:
        """Return where the last thing ends that a message says; 0 if none says anything."""
        for part in reversed(self._parts):
            index = bisect_right(part.source._said_ends, part.end) - 1
            if index >= 0 and part.source._said[index].start >= part.start:
                return part.at + part.source._said[index].end - part.start
        return 0


def _moved(piece: Piece, by: int) -> Piece:
    return piece._replace(start=piece.start + by, end=piece.end + by)


def agreement(first: str, second: str, start: int = 0) -> int:
    """Return how many characters `second` shares with what stands in `first` from `start` on."""
    # By halves, each compared in C: texts of a megabyte share nearly all of it, prompt after prompt.
    low, high = 0, min(len(first) - start, len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first.startswith(second[low:middle], start + low) else (low, middle - 1)
    return low
