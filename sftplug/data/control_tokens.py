"""Control tokens: which those of a tokenizer are, and which a chat template writes and the tokenizer does not have.

What a row says must never become one. A control token is

- any special token of the tokenizer (``"special": true``),
- any other added token that the chat template writes, or that is spelled like a control token (``<|user|>``),
- any token of the ordinary vocabulary that the template writes and that is spelled like one (``[INST]``).

Other added tokens are words (``<table>``, runs of spaces), and so is what ``model.add_tokens`` names and the template
does not write. In its own words an assistant may use what the template writes within its turns, where that is not
special: ``<think>``, ``<tool_call>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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


_SPELLED = re.compile(r"[<\[{][|｜].{1,60}|.{1,60}[|｜][>\]}]", re.DOTALL)
"""How the text of a control token is spelled and no word is."""
_BRACKETS = frozenset("<>[]{}|｜")
_MARKER = re.compile(r"<[|｜][^\s<>]{1,60}>|<[^\s<>]{1,60}[|｜]>|\[/?[A-Z_]{2,40}\]|</?[a-z]+_[a-z_]+>")
"""What is spelled like a control token in a template's text."""
_THOUGHT = re.compile(r"</?(?:think|thinking|thought|reasoning)>|\[/?THINK\]")
_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "sftplug", "arguments": {"a": "b"}}}
_THINKING = {"role": "assistant", "content": _ANSWERED, "reasoning_content": _ASKED}
_SPEAKING: tuple[list[dict[str, Any]], ...] = (
    [_USER, _THINKING],
    [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "name": "sftplug", "tool_call_id": "abcdefghi", "content": _ASKED},
        _THINKING,
    ],
)
"""Conversations in which an assistant does all that it may do."""


@dataclass(frozen=True, slots=True)
class Controls:
    """The control tokens of a tokenizer under a chat template."""

    pattern: re.Pattern[str] | None
    """Matches the text of one; None where there are none."""
    ids: NDArray[np.bool_]
    """(V,) whether an id is that of one."""
    texts: Mapping[int, str]
    """Id -> its text."""
    spoken: NDArray[np.bool_]
    """(V,) whether an assistant may use it in its own words."""
    spoken_texts: frozenset[str]
    normalized: Callable[[str], str]
    """What the tokenizer makes of a text before it looks for tokens: to some, ``<|ím_end|>`` is ``<|im_end|>``."""

    def is_spelled(self, index: int, text: str) -> bool:
        """Whether `text`, which became the control token `index`, spells it; a single byte has such an id in places."""
        token = self.texts[index]
        return token in text or self.normalized(token) in self.normalized(text)


def controls_of(
    tokenizer: PreTrainedTokenizerBase,
    template: Template | None = None,
    special_tokens: Mapping[str, Any] | None = None,
    words: Iterable[str] = (),
) -> Controls:
    """Return the control tokens of `tokenizer`.

    `template` is the chat template in use, `special_tokens` what it sees as ``bos_token`` and so on, `words` the tokens
    that the recipe adds.
    """
    arguments = special_tokens or {}
    written = "" if template is None else "\0".join([*template.literals, *_rendered(template, arguments)])
    added = {token.content: (index, token.special) for index, token in tokenizer.added_tokens_decoder.items()}
    own = {text for text in words if text not in written}
    special = {text for text, (_, special) in added.items() if special} | {*map(str, tokenizer.all_special_tokens)}
    marks = {text for text in added if text in special or _SPELLED.fullmatch(text) or _is_written(text, written)}
    control = {text: added[text][0] for text in marks - own}
    control |= dict(_ordinary(tokenizer, {*_MARKER.findall(written)} - added.keys()))
    spoken = {text for text in control.keys() - special if not _SPELLED.fullmatch(text)}
    if template is not None and spoken:
        spoken = _spoken(spoken, written, template, arguments)
    size = max([len(tokenizer), *control.values()]) + 1
    # The longest first, for a pattern takes the first of its branches that fits.
    texts = sorted(control, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, texts))) if texts else None
    ids, spoken_ids = (_mask(size, [control[text] for text in chosen]) for chosen in (texts, spoken))
    names = {index: text for text, index in control.items()}
    return Controls(pattern, ids, names, spoken_ids, frozenset(spoken), _normalizer(tokenizer))


def _normalizer(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    return str if normalizer is None else normalizer.normalize_str


def _is_written(text: str, written: str) -> bool:
    """Whether the template writes an added token that is not a mere word of its prose."""
    return not _BRACKETS.isdisjoint(text) and text in written


def _mask(size: int, ids: Iterable[int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[list(ids)] = True
    return mask


def _ordinary(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield those of `texts` that are one token of the ordinary vocabulary."""
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            yield text, ids[0]


def _spoken(texts: set[str], written: str, template: Template, arguments: Mapping[str, Any]) -> set[str]:
    """Return those of `texts` that the template writes, or reads a thought by, within an assistant's turn."""
    found = {text for text in texts if _THOUGHT.fullmatch(text) and text in written}
    for turn in _turns(template, arguments):
        # What a turn ends with is its stop: if a reply might hold that, it could end the turn in its middle.
        found |= {text for text in texts if text in turn and not turn.rstrip().endswith(text)}
    return found


def _turns(template: Template, arguments: Mapping[str, Any]) -> Iterator[str]:
    for messages in _SPEAKING:
        try:
            rendered = template.analyse(messages, **arguments)
        except TemplateStopped:
            raise
        except TemplateError:
            continue
        yield from (rendered.text[span.start : span.end] for span in rendered.spans)


def stops_of(template: Template | None, special_tokens: Mapping[str, Any]) -> frozenset[str]:
    """Return the control token with which `template` ends an assistant's turn; none where it ends it otherwise."""
    if template is None:
        return frozenset()
    try:
        rendered = template.analyse(_PROBES[0], **special_tokens)
    except TemplateStopped:
        raise
    except TemplateError:
        return frozenset()
    ends = {rendered.text[span.start : span.end].rpartition(_ANSWERED)[2].strip() for span in rendered.spans}
    return frozenset(end for end in ends if _SPELLED.fullmatch(end) or end in special_tokens.values())


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
    lacking = tuple(token for token in written if not _is_known(token, tokenizer))
    if not lacking:
        return None
    after = [text.rpartition(_ANSWERED)[2].lstrip() for text in texts if _ANSWERED in text]
    return Lacking(lacking, any(rest.startswith(lacking) for rest in after))


def _is_known(token: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # A fast tokenizer can look up one; to make a dict of its whole vocabulary takes longer than to prepare 100 rows.
    return token in tokenizer.get_vocab() if backend is None else backend.token_to_id(token) is not None


def _rendered(template: Template, special_tokens: Mapping[str, Any]) -> Iterator[str]:
    for messages in _PROBES:
        try:
            yield template.text(messages, **special_tokens)
            yield template.text(messages[:-1], add_generation_prompt=True, **special_tokens)
        except TemplateStopped:
            raise
        except TemplateError:
            continue  # it takes no such conversation; the rows tell what it takes
