"""Conversations -> token ids with exact labels, for whoever trains with another trainer or a loop of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from sftplug.errors import DataError, MaskError, ModelError, Problem, RecipeError, RowError, did_you_mean
from sftplug.plugin.calls import conversation_of
from sftplug.plugin.components import ChatTemplate, Component, DatasetFormat, Masking
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import Registry, build_registry
from sftplug.recipe.choices import expand
from sftplug.recipe.model import as_unions
from sftplug.types.tokens import PARTS, ROLE_CODES

if TYPE_CHECKING:
    from sftplug.data.encoder import Encoder
    from sftplug.data.rendering import ConversationRenderer, TextRow
    from sftplug.types.conversation import Conversation
    from sftplug.types.tokens import TokenBatch

Messages = Sequence[Mapping[str, Any]]
IGNORED = -100
"""The label of a token that is not trained."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation of T tokens."""

    input_ids: list[int]
    """(T,) token ids: those of ``apply_chat_template``, but that what a message says is no control token."""
    labels: list[int]
    """(T,) the id where the token is trained, -100 elsewhere; not shifted, as transformers wants them."""
    weights: list[float]
    """(T,) loss weight of each token; 0 and 1, unless the masking says otherwise."""
    roles: list[str]
    """(T,) who wrote each token: ``user``, ``assistant`` …, ``none`` for the template's own text."""
    parts: list[str]
    """(T,) what it is within its turn: ``header``, ``content``, ``reasoning``, ``tool_call``, ``end_of_turn`` or
    ``scaffold``."""
    message: list[int]
    """(T,) index of the message it belongs to; -1 for the template's own text."""
    text: str
    """The rendered text."""
    offsets: list[tuple[int, int]]
    """(T,) where in the text each token begins and ends."""

    @property
    def attention_mask(self) -> list[int]:
        """(T,) ones: nothing is padding."""
        return [1] * len(self.input_ids)

    @property
    def assistant_masks(self) -> list[int]:
        """(T,) 1 where the token is trained, under the name that ``apply_chat_template`` has for it."""
        return [int(weight > 0) for weight in self.weights]

    def row(self) -> dict[str, Any]:
        """Return ``input_ids`` and ``labels``, and ``weights`` where some are neither 0 nor 1: a row for a trainer."""
        plain = all(weight in (0.0, 1.0) for weight in self.weights)
        return {"input_ids": self.input_ids, "labels": self.labels, **({} if plain else {"weights": self.weights})}


def encode(  # noqa: PLR0913 - what there is to say of a conversation without a recipe
    tokenizer: Any,
    messages: Any,
    tools: Sequence[Mapping[str, Any]] | None = None,
    masking: Any = "assistant",
    *,
    chat_template: str | Mapping[str, Any] | ChatTemplate | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    end_tokens: Sequence[str] = (),
    missing_stop: Literal["error", "append_eos", "warn"] = "error",
    on_divergence: Literal["error", "warn"] = "error",
) -> Any:
    """Return a conversation as token ids with exact labels; of a list of conversations, a list.

    Works on any unedited chat template, without ``{% generation %}``. `messages` are OpenAI's, `tools` are the same for
    all conversations. `masking` is what a recipe says there: a name, ``"assistant + document"``, a list whose weights
    multiply, or objects. `chat_template` is the name of a template that a plugin offers, Jinja source, or an object; by
    default the tokenizer's own, which is not changed. `template_kwargs` are more arguments of the template, such as
    ``enable_thinking``; `end_tokens` are tokens that end a turn beside the tokenizer's EOS. `missing_stop` and
    `on_divergence` are those of the recipe's ``spans`` section; a turn that inference would render differently cannot
    be split into a row of its own here: `sftplug.prepare` does.

    Raises MaskError where the labels cannot be vouched for, DataError for messages that do not fit or of which nothing
    is trained, TemplateError and ModelError for template and tokenizer, RecipeError for a name that nothing has.
    """
    batched = bool(messages) and not isinstance(messages[0], Mapping)
    from sftplug.data.rendering import Policies

    template = _template(tokenizer, chat_template)
    made = _Encoding(
        *_machine(tokenizer, template, frozenset(end_tokens), Policies(missing_stop, on_divergence), len(tokenizer)),
        tuple(tuple(_component(Masking, part) for part in union) for union in as_unions(masking)),
    )
    encoded = made.encode(list(messages) if batched else [messages], tools, template_kwargs or {})
    return encoded if batched else encoded[0]


@dataclass(frozen=True, slots=True)
class _Encoding:
    """What turns conversations into tokens and weights."""

    gate: ConversationRenderer
    encoder: Encoder
    maskings: tuple[tuple[Masking, ...], ...]

    def encode(
        self, conversations: Sequence[Messages], tools: Any, template_kwargs: Mapping[str, Any]
    ) -> list[Encoded]:
        from sftplug.data.mask import weigh
        from sftplug.data.tokenize import tokenize

        one = len(conversations) == 1
        origins = ["the conversation" if one else f"conversation {index}" for index in range(len(conversations))]
        texts = [
            self._text(_conversation(messages, tools, template_kwargs, origin), origin)
            for messages, origin in zip(conversations, origins, strict=True)
        ]
        tokenized = tokenize([text.conversation for text in texts], [text.rendered for text in texts], self.encoder)
        for index in sorted(tokenized.stuck):
            raise DataError(
                f"{texts[index].origin}: a message holds the control token {tokenized.look_alikes[index]!r}, and this "
                "tokenizer cannot tokenize it as text."
            )
        weights = weigh(tokenized.tokens, self.maskings)
        found = list(_split(texts, tokenized.tokens, weights))
        for text, row in zip(texts, found, strict=True):
            if not any(row.weights):
                raise DataError(f"{text.origin}: no token is trained.")
        return found

    def _text(self, conversation: Conversation, origin: str) -> TextRow:
        """Return a conversation as text. Raises what the pipeline would write into its ledger."""
        from sftplug.data.convert import Example
        from sftplug.types.ledger import Account

        account = Account("encode")
        rows = list(self.gate.rows(Example(conversation, origin), account))
        if account.dropped:
            (stage, reasons), *_ = account.reasons.items()
            if stage == "unsafe":
                raise MaskError(reasons[0], picture=account.picture)
            raise DataError(reasons[0])
        return rows[0]


def _conversation(messages: Messages, tools: Any, template_kwargs: Mapping[str, Any], origin: str) -> Conversation:
    """Return messages as a conversation, by the format `messages`. Raises DataError for those that do not fit."""
    from dataclasses import replace

    from sftplug.data.convert import checked

    row: dict[str, Any] = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
    try:
        made = checked(conversation_of(_component(DatasetFormat, "messages"), row, origin))
    except RowError as error:
        raise DataError(f"{origin}: {error}") from error
    return replace(made, template_kwargs={**template_kwargs, **made.template_kwargs})


def _split(texts: Sequence[TextRow], tokens: TokenBatch, weights: Any) -> Any:
    """Yield each conversation's own tokens."""
    import numpy as np

    bounds = np.searchsorted(tokens.row, np.arange(len(texts) + 1))
    for text, low, high in zip(texts, bounds[:-1], bounds[1:], strict=True):
        here = slice(int(low), int(high))
        ids, weight = tokens.ids[here], weights[here]
        yield Encoded(
            input_ids=ids.tolist(),
            labels=np.where(weight > 0, ids, IGNORED).tolist(),
            weights=weight.tolist(),
            roles=[ROLE_CODES[code] for code in tokens.role[here]],
            parts=[PARTS[code] for code in tokens.part[here]],
            message=tokens.message[here].tolist(),
            text=text.rendered.text,
            offsets=list(zip(tokens.start[here].tolist(), tokens.end[here].tolist(), strict=True)),
        )


# --- by name ----------------------------------------------------------------------------------------------------------


@cache
def _registry() -> Registry:
    return build_registry(load_plugins())


def _component(kind: type[Component], value: Any) -> Any:
    """Return the component that `value` is, names or describes as a recipe does. Raises RecipeError."""
    if isinstance(value, kind):
        return value
    classes = _registry().classes()[kind]
    spelled = expand(value, classes)
    name = spelled.get("type") if isinstance(spelled, Mapping) else None
    if name not in classes:
        known = ", ".join(sorted(classes))
        text = f"'{name or value}' is not installed.{did_you_mean(str(name), classes)} Known: {known}."
        raise RecipeError("python", [Problem(kind.__name__.lower(), text)])
    try:
        return classes[str(name)].model_validate(spelled)
    except ValueError as error:
        raise RecipeError("python", [Problem(kind.__name__.lower(), str(error))]) from error


# --- template and tokenizer -------------------------------------------------------------------------------------------


class _Source(ChatTemplate):
    """A template that is given as Jinja source."""

    type: str = "given"
    text: str

    def source(self, tokenizer: Any) -> str:
        """Return it."""
        return self.text


def _template(tokenizer: Any, given: Any) -> ChatTemplate:
    if given is None:
        if not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template. Name one: chat_template='chatml', or Jinja source.")
        return _Source(text=tokenizer.get_chat_template(), type="of the tokenizer")
    if isinstance(given, str) and ("{{" in given or "{%" in given):
        return _Source(text=given)
    return cast("ChatTemplate", _component(ChatTemplate, given))


@lru_cache(maxsize=8)
def _machine(
    tokenizer: Any, template: ChatTemplate, end_tokens: frozenset[str], policies: Any, _size: int
) -> tuple[ConversationRenderer, Encoder]:
    """Return what renders and what tokenizes; made once for a template, a tokenizer and as many tokens as it has."""
    import copy

    from sftplug.data.encoder import encoder
    from sftplug.data.rendering import open_gate

    own = copy.copy(tokenizer)  # `open_gate` gives it the template, and the user's own is to stay as it is
    gate = open_gate(template, own, end_tokens, policies)
    return gate, encoder(own, gate.controls(own, ()), escape=True)
