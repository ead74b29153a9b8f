"""Control tokens that a chat template writes and the tokenizer does not have: it would cut them into pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.data.render import Template
from sftplug.errors import TemplateError, TemplateStopped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL = re.compile(r"<\|[^\s<>|]{1,60}\|>|<｜[^\s<>｜]{1,60}｜>")
"""What nobody writes who does not mean a control token: ``<|im_end|>``, ``<｜end▁of▁sentence｜>``. Tags such as
``<think>`` and ``[INST]`` are text in some models."""
_ASKED, _ANSWERED = "sftplug asks", "sftplug answers"
_USER, _ASSISTANT = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}
_PROBES = ([_USER, _ASSISTANT], [{"role": "system", "content": _ASKED}, _USER, _ASSISTANT, _USER, _ASSISTANT])
"""Conversations that show what a template writes."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a template writes and the tokenizer lacks."""

    tokens: tuple[str, ...]
    ends_turn: bool
    """Whether one of them ends the assistant's turn, so that no token would."""

    def sentence(self, template: str) -> str:
        """Return it for the user, with what to do."""
        return (
            f"the chat template '{template}' writes {', '.join(self.tokens)}, which the model's tokenizer would cut "
            "into pieces. Choose a template that suits the tokenizer, such as `chat_template: plain`, or a model that "
            f"has these tokens, or add them: `model.add_tokens: {json.dumps(self.tokens, ensure_ascii=False)}`."
        )


def lacking_tokens(
    template: Template, tokenizer: PreTrainedTokenizerBase, special_tokens: Mapping[str, Any]
) -> Lacking | None:
    """Return the control tokens that `template` writes in a plain conversation and `tokenizer` lacks; None if none."""
    texts = list(_rendered(template, special_tokens))
    written = dict.fromkeys(token for text in texts for token in _CONTROL.findall(text))
    known = tokenizer.get_vocab() if written else {}
    lacking = tuple(token for token in written if token not in known)
    if not lacking:
        return None
    after = [text.rpartition(_ANSWERED)[2].lstrip() for text in texts if _ANSWERED in text]
    return Lacking(lacking, any(rest.startswith(lacking) for rest in after))


def _rendered(template: Template, special_tokens: Mapping[str, Any]) -> Iterator[str]:
    for messages in _PROBES:
        try:
            yield template.text(messages, **special_tokens)
            yield template.text(messages[:-1], add_generation_prompt=True, **special_tokens)
        except TemplateStopped:
            raise
        except TemplateError:
            continue  # it takes no such conversation; the rows tell what it takes
