"""Conversations as tokens with provenance, without a tokenizer or a template."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sftplug.types.conversation import Conversation, Message
from sftplug.types.tokens import PARTS, ROLE_CODES, TokenBatch

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


class _Piece(NamedTuple):
    text: str
    part: str
    trainable: bool
    content_part: int = -1


class _Token(NamedTuple):
    id: int
    row: int
    message: int
    role: int
    part: int
    content_part: int
    trainable: bool
    start: int
    end: int


def token_batch(conversations: Sequence[Conversation]) -> TokenBatch:
    """Return `conversations` as a masking strategy gets them, a token for each word, sign and stretch of white space.

    The text of a turn is ``<role>`` (header), ``<think>…</think>`` (reasoning), the content, the tool calls as JSON,
    and ``<end>``; after each turn comes a line break of the template's own. Of an assistant's turn everything but the
    header is trainable; a plain conversation is its contents, and none of it is.
    """
    rows = [list(_row(conversation)) for conversation in conversations]
    tokens = [token for index, row in enumerate(rows) for token in _tokens(index, row, conversations[index])]
    columns = np.array(tokens, dtype=np.int64).reshape(-1, len(_Token._fields)).T
    types = (np.int32, np.int32, np.int32, np.int8, np.int8, np.int16, np.bool_, np.int32, np.int32)
    arrays: dict[str, Any] = {
        name: column.astype(dtype) for name, column, dtype in zip(_Token._fields, columns, types, strict=True)
    }
    texts = ["".join(piece.text for _, piece in row) for row in rows]
    return TokenBatch(ids=arrays.pop("id"), **arrays, texts=texts, conversations=list(conversations))


def _row(conversation: Conversation) -> Iterator[tuple[int, _Piece]]:
    """Yield (message, piece) in order; the message is -1 for the template's own text."""
    for index, message in enumerate(conversation.messages):
        if conversation.plain:
            yield index, _Piece(str(message.content or ""), "content", False)
        else:
            yield from ((index, piece) for piece in _turn(message))
            yield -1, _Piece("\n", "scaffold", False)


def _turn(message: Message) -> Iterator[_Piece]:
    own = message.role == "assistant"
    yield _Piece(f"<{message.role}>", "header", False)
    if message.reasoning_content is not None:
        yield _Piece(f"<think>{message.reasoning_content}</think>", "reasoning", own)
    if isinstance(message.content, str):
        yield _Piece(message.content, "content", own)
    else:
        parts = enumerate(message.content or ())
        yield from (_Piece(str(part.get("text", "")), "content", own, number) for number, part in parts)
    for call in message.tool_calls:
        yield _Piece(json.dumps(call.to_dict()), "tool_call", own)
    yield _Piece("<end>", "end_of_turn", own)


def _tokens(row: int, pieces: Sequence[tuple[int, _Piece]], conversation: Conversation) -> Iterator[_Token]:
    position = 0
    for message, piece in pieces:
        role = "none" if message < 0 else conversation.messages[message].role
        for word in _TOKEN.findall(piece.text):
            end = position + len(word)
            yield _Token(
                # Not `hash`, which gives another number to the same word in every process.
                zlib.crc32(word.encode()) % 32000,
                row,
                message,
                ROLE_CODES.index(role),
                PARTS.index(piece.part),
                piece.content_part,
                piece.trainable,
                position,
                end,
            )
            position = end
