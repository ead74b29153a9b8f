"""What a model is shown when it is asked something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, reply: bool = True
) -> str:
    """Return the text of `messages` in the tokenizer's chat template: transformers' text, within bounds.

    A template is a program that came with somebody's model; here it cannot run for ever or fill the memory, as it could
    under ``apply_chat_template``. With `reply`, the text goes on with what opens the assistant's turn. Raises
    TemplateError for a template that refuses the messages or does too much, and for a tokenizer without one.
    """
    from sftplug.data.render.template import compile_template
    from sftplug.errors import TemplateError

    if not tokenizer.chat_template:
        raise TemplateError("the tokenizer has no chat template.")
    template = compile_template(tokenizer.get_chat_template(), "of the tokenizer")
    return template.text(messages, add_generation_prompt=reply, **tokenizer.special_tokens_map)
