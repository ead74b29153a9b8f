"""What a model is shown when it is asked something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.data.encoder import Encoder
    from sftplug.data.render import Template

Messages = Sequence[Mapping[str, Any]]


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, reply: bool = True) -> str:
    """Return the text of `messages` in the tokenizer's chat template: transformers' text, within bounds.

    A template is a program that came with somebody's model; here it cannot run for ever or fill the memory, as it could
    under ``apply_chat_template``. With `reply`, the text goes on with what opens the assistant's turn. Raises
    TemplateError for a template that refuses the messages or does too much, and for a tokenizer without one.

    The text does not say who wrote what: tokenized, a control token that somebody wrote into a message is one. To ask a
    model, use `encode_prompt`.
    """
    return _template(tokenizer).text(messages, add_generation_prompt=reply, **tokenizer.special_tokens_map)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages | str,
    *,
    reply: bool = True,
    words: Sequence[str] = (),
    escape: bool = True,
) -> list[int]:
    """Return the T token ids of `messages` in the tokenizer's chat template; what messages say is not a control token.

    These are the ids of ``apply_chat_template``, but that ``<|im_end|>`` in a message is text, as it is in training
    rows (`escape`; ``data.special_tokens_in_content``). `words` are added tokens that messages may use
    (``model.add_tokens``). A plain text, which no template renders, follows the tokenizer's BOS.

    Raises TemplateError as `render_prompt` does, and DataError where the tokenizer cannot tokenize a control token as
    text.
    """
    from sftplug.data.plain import render_plain
    from sftplug.data.tokenize import tokenize
    from sftplug.errors import DataError
    from sftplug.types.conversation import Conversation, Message

    plain = isinstance(messages, str)
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    said = Conversation(tuple(Message(turn["role"], turn.get("content")) for turn in turns), plain=plain)
    if plain:
        rendered, template = render_plain(said, "", ""), None
    else:
        template = _template(tokenizer)
        rendered = template.prompt(turns, add_generation_prompt=reply, **tokenizer.special_tokens_map)
    tokenized = tokenize([said], [rendered], _encoder(tokenizer, template, tuple(words), len(tokenizer), escape))
    if tokenized.stuck:
        raise DataError(
            f"the prompt holds the control token {tokenized.look_alikes[0]!r}, and this tokenizer cannot tokenize it "
            "as text. Leave it out, or set `data.special_tokens_in_content: allow` to let it control."
        )
    # Of what the tokenizer puts around an empty text, the first id if that is BOS: True is 1 as the end of a slice.
    start = tokenizer("", add_special_tokens=True)["input_ids"] if plain else []
    return [*start[: start[:1] == [tokenizer.bos_token_id]], *map(int, tokenized.tokens.ids)]


@lru_cache(maxsize=4)
def _encoder(
    tokenizer: PreTrainedTokenizerBase, template: Template | None, words: tuple[str, ...], _size: int, escape: bool
) -> Encoder:
    """Return how prompts are tokenized; made once for each number of tokens that the tokenizer has."""
    from sftplug.data.control_tokens import controls_of
    from sftplug.data.encoder import encoder

    return encoder(tokenizer, controls_of(tokenizer, template, tokenizer.special_tokens_map, words), escape=escape)


def _template(tokenizer: PreTrainedTokenizerBase) -> Template:
    from sftplug.data.render import compile_template
    from sftplug.errors import TemplateError

    if not tokenizer.chat_template:
        raise TemplateError("the tokenizer has no chat template.")
    return compile_template(tokenizer.get_chat_template(), "of the tokenizer")
