"""Text that no chat template renders: the contents as they stand, between the tokenizer's BOS and EOS."""

from __future__ import annotations

import numpy as np

from sftplug.data.render import Rendered, Runs, Span
from sftplug.errors import RowError
from sftplug.types.conversation import Conversation
from sftplug.types.tokens import PARTS


def render_plain(conversation: Conversation, bos: str, eos: str) -> Rendered:
    """Return the contents joined, after `bos` and before `eos`; assistant text and its `eos` are the trained span.

    `bos` is empty for a tokenizer that adds none. Raises RowError for a text that brings its own BOS or EOS: the
    model would see it twice.
    """
    texts = [str(message.content or "") for message in conversation.messages]
    _refuse_doubled(texts, bos, eos)
    pieces = [(-1, "scaffold", bos), *((index, "content", text) for index, text in enumerate(texts))]
    pieces.append((len(texts) - 1, "end_of_turn", eos))
    pieces = [piece for piece in pieces if piece[2]]
    starts = np.cumsum([0, *(len(text) for _, _, text in pieces)])
    message = np.array([index for index, _, _ in pieces], dtype=np.int32)
    part = np.array([PARTS.index(name) for _, name, _ in pieces], dtype=np.int8)
    spans = tuple(_spans(conversation, message, starts))
    own = np.array([name == "content" for _, name, _ in pieces], dtype=bool)
    runs = Runs(starts[:-1].astype(np.int32), message, part, own, np.full(len(own), -1, np.int16), own)
    return Rendered("".join(text for _, _, text in pieces), runs, spans, ())


def _spans(conversation: Conversation, message: np.ndarray, starts: np.ndarray) -> list[Span]:
    spans = []
    for index, turn in enumerate(conversation.messages):
        runs = np.flatnonzero(message == index)
        if turn.role == "assistant" and len(runs):
            spans.append(Span(int(starts[runs[0]]), int(starts[runs[-1] + 1]), index))
    return spans


def _refuse_doubled(texts: list[str], bos: str, eos: str) -> None:
    joined = "".join(texts)
    if bos and joined.startswith(bos):
        raise RowError("text", f"starts with {bos}, which the tokenizer adds itself: the model would see it twice")
    if eos and joined.endswith(eos):
        raise RowError("text", f"ends with {eos}, which is added to every text: the model would see it twice")
