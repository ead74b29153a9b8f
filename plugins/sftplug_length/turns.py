"""Policies that leave out or part whole exchanges, so that no answer is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from sftplug import Conversation, LengthPolicy, LongRow

Exchange = range
"""Indices of a user's message and of all that follows it up to the next one."""


class DropOldestTurns(LengthPolicy):
    """Leave out the oldest exchanges until the row fits; the system turn and the last exchange stay."""

    type: Literal["drop_oldest_turns"] = "drop_oldest_turns"

    def shorten(self, row: LongRow) -> Sequence[Conversation]:
        """Return the conversation without its oldest exchanges; nothing if the last one alone is too long."""
        head, exchanges = _parts(row.conversation)
        room = row.limit - _fixed(row, head)
        if len(exchanges) < 2:
            return []
        first = len(exchanges) - 1
        # From the last exchange backwards, for as long as the one before it fits. `first > 1`, because with all of them
        # the row is too long: at least the first must go.
        left = room - _size(row, exchanges[first])
        while first > 1 and _size(row, exchanges[first - 1]) <= left:
            first -= 1
            left -= _size(row, exchanges[first])
        return [_keep(row.conversation, head, exchanges[first:])]


class SplitAtTurns(LengthPolicy):
    """Make several rows of one, each with the system turn and as many exchanges in a row as fit."""

    type: Literal["split_at_turns"] = "split_at_turns"

    def shorten(self, row: LongRow) -> Sequence[Conversation]:
        """Return the stretches; an exchange that is too long alone is left out."""
        head, exchanges = _parts(row.conversation)
        room = row.limit - _fixed(row, head)
        stretches: list[list[Exchange]] = []
        # Nothing is left of a stretch that is not there, so the first exchange opens one.
        left = 0
        for exchange in exchanges:
            size = _size(row, exchange)
            if size > left:
                stretches.append([])
                left = room
            stretches[-1].append(exchange)
            left -= size
        return [_keep(row.conversation, head, stretch) for stretch in stretches] if len(stretches) > 1 else []


def _parts(conversation: Conversation) -> tuple[range, list[Exchange]]:
    """Return the indices of the turns before the first user's, and the exchanges."""
    roles = [message.role for message in conversation.messages]
    starts = [index for index, role in enumerate(roles) if role == "user"]
    if not starts:
        return range(len(roles)), []
    return range(starts[0]), [range(low, high) for low, high in zip(starts, [*starts[1:], len(roles)], strict=True)]


def _fixed(row: LongRow, head: range) -> int:
    """Return the tokens that every part of the conversation needs: those of the head, and those of no message."""
    return row.length - sum(row.message_tokens) + _size(row, head)


def _size(row: LongRow, messages: range) -> int:
    return sum(row.message_tokens[index] for index in messages)


def _keep(conversation: Conversation, head: range, exchanges: Sequence[Exchange]) -> Conversation:
    kept = [*head, *(index for exchange in exchanges for index in exchange)]
    start = conversation.completion_from
    # Of messages 0 to 4 with the completion from 3 on, 0, 3 and 4 are kept: the completion now begins at 1.
    moved = None if start is None else sum(index < start for index in kept)
    return replace(conversation, messages=tuple(conversation.messages[index] for index in kept), completion_from=moved)
