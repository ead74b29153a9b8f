"""Token ids or text that a model generated -> the message that it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from sftplug.api.encoding import template_of
from sftplug.errors import SftplugError
from sftplug.plugin.components import ChatTemplate

if TYPE_CHECKING:
    from sftplug.data.parse import ReplyReader
    from sftplug.types.decoded import Decoded


class Situated(TypedDict, total=False):
    """What else there is to say of how a reply was asked for; see `encode`."""

    chat_template: str | Mapping[str, Any] | ChatTemplate | None
    """Name of a template that a plugin offers, Jinja source, or an object; by default the tokenizer's own."""
    template_kwargs: Mapping[str, Any]
    """More arguments of the template, such as ``enable_thinking``."""
    end_tokens: Sequence[str]
    """Tokens that end a turn beside the tokenizer's EOS."""


def decode(
    tokenizer: Any,
    reply: Sequence[int] | str,
    messages: Sequence[Mapping[str, Any]] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **options: Unpack[Situated],
) -> Decoded:
    """Return what a model generated as a message: content, reasoning and tool calls.

    It inverts the chat template, whichever that is: a few replies that the template renders show how it writes
    thoughts and calls, and a message is returned only if the template renders the `reply` of it again. What is none,
    such as half of a call, is content, and `.problem` says what was not understood.

    `reply` is the (T,) token ids that were generated, without the prompt, or their text with special tokens. Of ids,
    what merely spells a control token is text; those after the first end token are left out. `messages` are what the
    reply answers, as OpenAI has them; without them a question alone. `tools` tell the types of arguments where a
    template writes ``3`` and ``"3"`` alike. `options` are those of `Situated`.

    Raises TemplateError for a template that refuses the messages, ModelError for a tokenizer without a template,
    DataError for ids that are none, RecipeError for a template's name that nothing has, TypeError for an option that
    there is not.
    """
    chosen = _Chosen(**options)
    template = template_of(tokenizer, chosen.chat_template)
    reader = _reader(tokenizer, template, frozenset(chosen.end_tokens), len(tokenizer))
    return reader.read(reply, messages, tools, chosen.template_kwargs)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The options, with what holds where none is given."""

    chat_template: Any = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    end_tokens: Sequence[str] = ()


@lru_cache(maxsize=8)
def _reader(tokenizer: Any, template: ChatTemplate, end_tokens: frozenset[str], _size: int) -> ReplyReader:
    """Return what reads replies; made once for a template, a tokenizer and as many tokens as it has."""
    import copy

    from sftplug.data.parse import ReplyReader
    from sftplug.data.rendering import Policies, open_gate

    own = copy.copy(tokenizer)  # `open_gate` gives it the template, and the user's own is to stay as it is
    gate = open_gate(template, own, end_tokens, Policies(missing_stop="warn"))
    if isinstance(gate.template, SftplugError):
        raise gate.template
    return ReplyReader(own, gate.template, gate.controls(own, ()), gate.special_tokens, gate.end_tokens)
