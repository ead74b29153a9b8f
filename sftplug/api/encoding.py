"""Conversations -> token ids with exact labels, for whoever trains with another trainer or a loop of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, overload

from sftplug.errors import DataError, MaskError, ModelError, Problem, RecipeError, RowError, did_you_mean
from sftplug.plugin.calls import conversation_of
from sftplug.plugin.components import ChatTemplate, Component, DatasetFormat, Masking
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import Registry, build_registry
from sftplug.recipe.model import MaskingList, Recipe
from sftplug.recipe.short_forms import spell_out_component, spell_out_field
from sftplug.types.tokens import IGNORED, PARTS, ROLE_CODES

if TYPE_CHECKING:
    from sftplug.data.convert import Example
    from sftplug.data.encoder import Encoder
    from sftplug.data.rendering import ConversationRenderer, Policies, TextRow
    from sftplug.types.conversation import Conversation
    from sftplug.types.tokens import TokenBatch

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row of T tokens: a conversation, or a turn of it."""

    input_ids: list[int]
    """(T,) token ids: those of ``apply_chat_template``, but that what a message says is not a control token."""
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
    conversation: int
    """Index of the conversation that it is of: 0, but for a batch."""
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


@overload
def encode(
    tokenizer: Any,
    messages: Messages,
    tools: Tools = ...,
    masking: Any = ...,
    *,
    on_divergence: Literal["error", "warn"] = ...,
    **options: Unpack[Options],
) -> Encoded: ...


@overload
def encode(
    tokenizer: Any,
    messages: Sequence[Messages],
    tools: Tools | Sequence[Tools] = ...,
    masking: Any = ...,
    *,
    on_divergence: Literal["error", "warn", "split"] = ...,
    **options: Unpack[Options],
) -> list[Encoded]: ...


@overload
def encode(
    tokenizer: Any,
    messages: Messages,
    tools: Tools = ...,
    masking: Any = ...,
    *,
    on_divergence: Literal["split"],
    **options: Unpack[Options],
) -> list[Encoded]: ...


def encode(
    tokenizer: Any,
    messages: Any,
    tools: Any = None,
    masking: Any = "assistant",
    *,
    on_divergence: Literal["error", "warn", "split"] = "error",
    **options: Unpack[Options],
) -> Any:
    """Return a conversation as token ids with exact labels; of a list of conversations, a list.

    Works on any unedited chat template, without ``{% generation %}``. `messages` are OpenAI's; `tools` are the same for
    all conversations, or a list with those of each. `masking` is what a recipe says there: a name,
    ``"assistant + document"``, a list whose weights multiply, or objects. `options` are those of `Options`.

    `on_divergence` says what becomes of a turn that inference would render differently, as templates do that leave out
    the reasoning of earlier turns: ``split`` trains it in a row of its own, after the row of its conversation, so that
    a list is returned, whose items say by ``.conversation`` what they are of; ``warn`` trains it as it is.

    Raises MaskError where the labels cannot be vouched for, DataError for messages that do not fit or of which nothing
    is trained, TemplateError and ModelError for template and tokenizer, RecipeError for a name that nothing has,
    TypeError for an option that there is not.
    """
    chosen = _Chosen(**options)
    batched = bool(messages) and not isinstance(messages[0], Mapping)
    encoding = _Encoding(
        *_machine(tokenizer, template_of(tokenizer, chosen.chat_template), chosen, on_divergence, len(tokenizer)),
        _maskings(masking),
    )
    encoded = encoding.encode(_conversations(messages, tools, chosen, batched=batched))
    return encoded if batched or on_divergence == "split" else encoded[0]


class Options(TypedDict, total=False):
    """What else there is to say of a conversation without a recipe."""

    chat_template: str | Mapping[str, Any] | ChatTemplate | None
    """Name of a template that a plugin offers, Jinja source, or an object; by default the tokenizer's own, which is not
    changed."""
    template_kwargs: Mapping[str, Any]
    """More arguments of the template, such as ``enable_thinking``."""
    end_tokens: Sequence[str]
    """Tokens that end a turn beside the tokenizer's EOS."""
    missing_stop: Literal["error", "append_eos", "warn"]
    """What becomes of a turn without a stop token; this and the next are those of the recipe's ``spans`` section."""
    dropped_reasoning: Literal["error", "warn"]
    """What becomes of reasoning that the template does not render."""
    dropped_tools: Literal["error", "warn"]
    """What becomes of tools that the template does not render."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The options, with what holds where none is given."""

    chat_template: Any = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    end_tokens: Sequence[str] = ()
    missing_stop: Literal["error", "append_eos", "warn"] = "error"
    dropped_reasoning: Literal["error", "warn"] = "error"
    dropped_tools: Literal["error", "warn"] = "error"


@dataclass(frozen=True, slots=True)
class _Encoding:
    """What turns conversations into tokens and weights."""

    renderer: ConversationRenderer
    encoder: Encoder
    maskings: tuple[tuple[Masking, ...], ...]

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return the rows of all conversations, those of each beside each other."""
        from sftplug.data.mask import weigh
        from sftplug.data.tokenize import tokenize

        numbered = [(index, text) for index, example in enumerate(examples) for text in self._texts(example)]
        texts = [text for _, text in numbered]
        tokenized = tokenize([text.conversation for text in texts], [text.rendered for text in texts], self.encoder)
        for index in sorted(tokenized.stuck):
            raise DataError(
                f"{texts[index].origin}: a message holds the control token {tokenized.look_alikes[index]!r}, and this "
                "tokenizer cannot tokenize it as text."
            )
        tokens = tokenized.tokens
        weights = weigh(tokens, self.maskings)
        for index, (_, text) in enumerate(numbered):
            if text.added:  # the rest of it is trained in the row of its conversation
                weights[(tokens.row == index) & ~tokens.trainable] = 0
        rows = [row for row in _rows(numbered, tokens, weights) if any(row.weights)]
        for index in sorted({*range(len(examples))} - {row.conversation for row in rows}):
            raise DataError(f"{examples[index].origin}: no token is trained.")
        return rows

    def _texts(self, example: Example) -> list[TextRow]:
        """Return a conversation as text. Raises what the pipeline would write into its ledger."""
        from sftplug.types.ledger import Account

        account = Account("encode")
        texts = list(self.renderer.rows(example, account))
        if not account.dropped:
            return texts
        (stage, (reason, *_)), *_ = account.reasons.items()
        if stage != "unsafe":
            raise DataError(reason)
        kinds = [group.kind for group in account.groups[stage].largest()]
        ways = dict.fromkeys(WAYS_OUT[kind] for kind in kinds if kind in WAYS_OUT)
        raise MaskError("\n".join([reason, *ways]), picture=account.picture)


WAYS_OUT = {
    "no_stop": "missing_stop='append_eos' adds the tokenizer's EOS.",
    **dict.fromkeys(
        ("divergent_header", "divergent_context"), "on_divergence='split' returns such turns as rows of their own."
    ),
    "dropped_reasoning": "dropped_reasoning='warn' trains without the reasoning.",
    "dropped_tools": "dropped_tools='warn' trains without the tools.",
}
"""Kind of finding -> what lets it through."""


def _conversations(messages: Any, tools: Any, chosen: _Chosen, *, batched: bool) -> list[Example]:
    """Return messages as conversations. Raises DataError for those that do not fit."""
    from sftplug.data.convert import Example

    given = list(messages) if batched else [messages]
    each = list(tools) if batched and tools and not isinstance(tools[0], Mapping) else [tools] * len(given)
    if len(each) != len(given):
        raise DataError(f"there are tools for {len(each)} conversations, and {len(given)} conversations.")
    origins = ["the conversation"] if len(given) == 1 else [f"conversation {index}" for index in range(len(given))]
    return [
        Example(_conversation(said, mine, chosen.template_kwargs, origin), origin)
        for said, mine, origin in zip(given, each, origins, strict=True)
    ]


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


def _rows(numbered: Sequence[tuple[int, TextRow]], tokens: TokenBatch, weights: Any) -> Iterator[Encoded]:
    """Yield each row's own tokens."""
    import numpy as np

    bounds = np.searchsorted(tokens.row, np.arange(len(numbered) + 1))
    for (conversation, text), low, high in zip(numbered, bounds[:-1], bounds[1:], strict=True):
        here = slice(int(low), int(high))
        ids, weight = tokens.ids[here], weights[here]
        yield Encoded(
            input_ids=ids.tolist(),
            labels=np.where(weight > 0, ids, IGNORED).tolist(),
            weights=weight.tolist(),
            roles=[ROLE_CODES[code] for code in tokens.role[here]],
            parts=[PARTS[code] for code in tokens.part[here]],
            message=tokens.message[here].tolist(),
            conversation=conversation,
            text=text.rendered.text,
            offsets=list(zip(tokens.start[here].tolist(), tokens.end[here].tolist(), strict=True)),
        )


# --- by name ----------------------------------------------------------------------------------------------------------


@cache
def _registry() -> Registry:
    return build_registry(load_plugins())


def _maskings(masking: Any) -> MaskingList:
    unions = spell_out_field(masking, Recipe.model_fields["masking"], _registry().classes())
    return tuple(tuple(_component(Masking, part) for part in union) for union in unions)


def _component(kind: type[Component], value: Any) -> Any:
    """Return the component that `value` is, names or describes as a recipe does. Raises RecipeError."""
    if isinstance(value, kind):
        return value
    offers = _registry().classes()
    classes, spelled = offers[kind], spell_out_component(value, kind, offers)
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


def template_of(tokenizer: Any, given: Any) -> ChatTemplate:
    """Return the chat template that is `given`: a name, Jinja source or an object; by default the tokenizer's own."""
    if given is None:
        if not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template. Name one: chat_template='chatml', or Jinja source.")
        if isinstance(tokenizer.chat_template, Mapping):
            names = ", ".join(map(repr, tokenizer.chat_template))
            raise ModelError(
                f"the tokenizer has several chat templates: chat_template=tokenizer.chat_template[{names}]."
            )
        return _Source(text=tokenizer.get_chat_template(), type="of the tokenizer")
    if isinstance(given, str) and ("{{" in given or "{%" in given):
        return _Source(text=given)
    return cast("ChatTemplate", _component(ChatTemplate, given))


def _machine(
    tokenizer: Any, template: ChatTemplate, chosen: _Chosen, on_divergence: Any, size: int
) -> tuple[ConversationRenderer, Encoder]:
    from sftplug.data.rendering import Policies

    policies = Policies(chosen.missing_stop, on_divergence, chosen.dropped_reasoning, chosen.dropped_tools)
    return _made(tokenizer, template, frozenset(chosen.end_tokens), policies, size)


@lru_cache(maxsize=8)
def _made(
    tokenizer: Any, template: ChatTemplate, end_tokens: frozenset[str], policies: Policies, _size: int
) -> tuple[ConversationRenderer, Encoder]:
    """Return what renders and what tokenizes; made once for a template, a tokenizer and as many tokens as it has."""
    import copy

    from sftplug.data.encoder import encoder
    from sftplug.data.rendering import open_gate

    own = copy.copy(tokenizer)  # `open_gate` gives it the template, and the user's own is to stay as it is
    renderer = open_gate(template, own, end_tokens, policies)
    return renderer, encoder(own, renderer.controls(own, ()), escape=True)
