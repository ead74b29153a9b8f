"""Text that no chat template renders: the contents as they stand, between the tokenizer's BOS and EOS.

It is its author's own layout, which may be that of a chat template already: control tokens in it control, and a BOS or
a stop that it brings is not added a second time. Where they are mere text, it brings none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from sftplug.data.render import Rendered, Runs, Span
from sftplug.types.conversation import Conversation
from sftplug.types.tokens import PARTS

Piece = tuple[int, str, str]
"""Index of the message, part, text."""


def render_plain(conversation: Conversation, bos: str, eos: str, stops: Collection[str] | None = None) -> Rendered:
    """Return the contents joined, after `bos` and before `eos`; assistant text and what stops it are the trained span.

    `bos` is empty for a tokenizer that adds none. With `stops`, a text that begins with `bos` gets no second one, and
    one that ends in one of them, but for white space, gets no `eos`.
    """
    texts = [str(message.content or "") for message in conversation.messages]
    own_bos, stop = (False, "") if stops is None else brings(conversation, bos, stops)
    pieces: list[Piece] = [(-1, "scaffold", "" if own_bos else bos)]
    pieces += [(index, "content", text) for index, text in enumerate(texts[:-1])]
    pieces += _last(len(texts) - 1, texts[-1], stop, eos)
    # Runs tile the text, so one without characters would lie at the place of the next.
    pieces = [piece for piece in pieces if piece[2]]
    starts = np.cumsum([0, *(len(text) for _, _, text in pieces)])
    message = np.array([index for index, _, _ in pieces], dtype=np.int32)
    part = np.array([PARTS.index(name) for _, name, _ in pieces], dtype=np.int8)
    spans = tuple(_spans(conversation, message, part, starts))
    own = part == PARTS.index("content")
    # A stop that the text brings is the row's own, too; what is added is not.
    given = own | (part == PARTS.index("end_of_turn")) if stop else own
    runs = Runs(starts[:-1].astype(np.int32), message, part, own, np.full(len(own), -1, np.int16), given)
    return Rendered("".join(text for _, _, text in pieces), runs, spans, ())


def brings(conversation: Conversation, bos: str, stops: Collection[str]) -> tuple[bool, str]:
    """Return whether plain text begins with `bos` itself, and the one of `stops` that it ends in, or an empty text."""
    texts = [str(message.content or "") for message in conversation.messages]
    last = texts[-1].rstrip()
    stop = max((stop for stop in stops if stop and last.endswith(stop)), key=len, default="")
    return bool(bos) and "".join(texts[:2]).startswith(bos), stop


def _last(index: int, text: str, stop: str, eos: str) -> list[Piece]:
    """Return the pieces of the last message: what it says, what stops it, and white space behind that."""
    if not stop:
        return [(index, "content", text), (index, "end_of_turn", eos)]
    said = text.rstrip()
    return [(index, "content", said[: -len(stop)]), (index, "end_of_turn", stop), (index, "content", text[len(said) :])]


def _spans(conversation: Conversation, message: np.ndarray, part: np.ndarray, starts: np.ndarray) -> Iterator[Span]:
    for index, turn in enumerate(conversation.messages):
        runs = np.flatnonzero(message == index)
        if turn.role == "assistant" and len(runs):
            # White space behind the stop is not what the model has to say.
            stops = runs[part[runs] == PARTS.index("end_of_turn")]
            last = stops[0] if len(stops) else runs[-1]
            yield Span(int(starts[runs[0]]), int(starts[last + 1]), index)
