"""From token ids to a text in which a control token and its mere spelling are not the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from sftplug.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.data.control_tokens import Controls

SPELLED = "\ufdd0"
"""Stands after the first character of what only spells a control token; Unicode keeps it out of every text."""


def without_marks(text: str) -> str:
    """Return a text as the model wrote it."""
    return text.replace(SPELLED, "")


def ids_of(reply: Any, ends: Sequence[int]) -> list[int]:
    """Return the ids of one reply, up to the first that ends it. Raises DataError for what are none."""
    listed = reply.tolist() if hasattr(reply, "tolist") else list(reply)
    for index in listed:
        if not isinstance(index, Integral) or index < 0:
            raise DataError(
                f"a reply is the token ids of one text, and {index!r} is no token id. Of a batch, decode each row."
            )
    end = next((at + 1 for at, index in enumerate(listed) if index in ends), len(listed))
    return [int(index) for index in listed[:end]]


def text_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, controls: Controls) -> str:
    """Return the text of token ids; what only spells a control token holds `SPELLED`."""
    # The token <|im_end|> is "<|im_end|>", and the tokens "<", "|im", "_end|>" are "<\ufdd0|im_end|>".
    pieces = []
    for control, group in itertools.groupby(ids, controls.texts.__contains__):
        some = list(group)
        if control:
            pieces += [controls.texts[index] for index in some]
        else:
            pieces.append(_marked(_plain(some, tokenizer), controls))
    return "".join(pieces)


def _plain(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of ordinary tokens; at the beginning of a text some tokenizers leave a space out."""
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    first, whole = (str(tokenizer.decode(some, **options)) for some in (before, [*before, *ids]))
    return whole.removeprefix(first) if whole.startswith(first) else str(tokenizer.decode(ids, **options))


def _marked(text: str, controls: Controls) -> str:
    if controls.pattern is None:
        return text
    return controls.pattern.sub(lambda found: found[0][:1] + SPELLED + found[0][1:], text)
