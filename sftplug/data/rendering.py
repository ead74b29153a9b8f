"""Conversations -> rendered rows that are safe to train on: what the render's check found, met with the policies.

There is no way past this gate: a row whose mask failed the check is dropped into the ledger as ``unsafe``, and any
unsafe row stops the run before weights are loaded.
"""

from __future__ import annotations

import itertools
import logging
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sftplug.data.control_tokens import Controls, controls_of, lacking_tokens, stops_of
from sftplug.data.convert import Example
from sftplug.data.joined import JOINED, as_the_template_takes_it, is_all_text, joined_messages
from sftplug.data.noted import hidden, once
from sftplug.data.plain import brings, render_plain
from sftplug.data.render import Finding, Rendered, Template, compile_template
from sftplug.data.row_tokens import OWN_TOKENS, TokenTexts
from sftplug.data.usual import plain_texts
from sftplug.data.ways_out import RowSample
from sftplug.errors import (
    DataError,
    MaskError,
    ModelError,
    PluginError,
    RowError,
    SftplugError,
    TemplateError,
    TemplateStopped,
    did_you_mean,
)
from sftplug.plugin.calls import template_source
from sftplug.plugin.components import ChatTemplate
from sftplug.types.conversation import Conversation, RowTokens
from sftplug.types.ledger import Account
from sftplug.util.processes import is_main

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger("sftplug.template")

COMPARED_FIRST = 100
"""So many rows at the start are compared with transformers' own render, and then one of so many."""

OWN_BOS, OWN_STOP = "BOS of its own", "stop of its own"
DIVERGENT = ("divergent_header", "divergent_context")


@dataclass(frozen=True, slots=True)
class Policies:
    """What to do where the text alone does not settle what is trained; see the recipe's ``spans`` section."""

    missing_stop: Literal["error", "append_eos", "warn"] = "error"
    on_divergence: Literal["split", "warn", "error"] = "split"
    dropped_reasoning: Literal["error", "warn"] = "error"
    dropped_tools: Literal["error", "warn"] = "error"
    plain_controls: bool = True
    """Whether control tokens in plain text control, so that one that ends it is its stop."""

    def refuse(self, finding: Finding) -> bool:
        """Whether a row of which this was found is not trained."""
        if finding.kind == "no_stop":
            return self.missing_stop == "error"
        if finding.kind in DIVERGENT:
            return self.on_divergence == "error"
        if finding.kind == "dropped_reasoning":
            return self.dropped_reasoning == "error"
        if finding.kind == "dropped_tools":
            return self.dropped_tools == "error"
        return finding.severity == "error"


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row as text, safe to tokenize."""

    number: int
    """Which of the rows read it comes from; a row with divergent turns becomes several."""
    conversation: Conversation
    rendered: Rendered
    origin: str
    added: bool
    """True for a divergent turn in a row of its own; only that turn is trained there."""


@dataclass(frozen=True, slots=True)
class TemplateArguments:
    """The arguments of a chat template."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    kwargs: dict[str, Any]
    given: frozenset[str]
    """Names of the arguments that the row gives, and not the tokenizer."""


@dataclass(slots=True)
class ConversationRenderer:
    """Renders conversations with one template and lets through what passes."""

    name: str
    """The chat template as the recipe names it."""
    template: Template | SftplugError
    """The template, or why there is none: that matters only when a row is a conversation."""
    special_tokens: Mapping[str, Any]
    """What templates see as ``bos_token``, ``eos_token`` …, as transformers passes them."""
    bos: str
    """What the tokenizer puts before plain text; empty when it adds none."""
    end_tokens: frozenset[str]
    token_texts: TokenTexts
    """What the ids of rows spell that come as tokens."""
    policies: Policies = field(default_factory=Policies)
    seen: int = 0
    preamble: str = ""
    """What the template puts before a row that has no system turn, if that is prose: a system prompt of its own."""
    sample: RowSample = field(default_factory=RowSample)
    """Rows on which other templates are tried, where this one does not do."""
    templated: int = 0
    """How many rows the template was asked for."""
    _arguments: str = ""
    _stops: frozenset[str] | None = None
    """What ends plain text, as far as it is known."""

    def __post_init__(self) -> None:
        """Note what every plain conversation is rendered with."""
        self._arguments = repr({**self.special_tokens})

    def rows(self, example: Example, account: Account, number: int | None = None) -> Iterator[TextRow]:
        """Yield the text rows that `example` becomes: one, or one more for each divergent turn, or none.

        `number` is that of a row rendered before, of which `example` is what fits. Raises the error that left the
        recipe without a chat template, if the row is a conversation.
        """
        self.seen += number is None
        number = self.seen if number is None else number
        origin = example.origin
        try:
            example = self._taken(example, account)
            conversation = example.conversation
            rendered = [self._plain(example, account)] if conversation.plain else self._templated(example, account)
        except RowError as error:
            account.drop("bad", origin, str(error))
        except TemplateStopped:
            raise  # it would be stopped at every row
        except TemplateError as error:
            self._drop("refused", example, error, account)
        except MaskError as error:
            self._drop("unsafe", example, error, account)
        else:
            self.sample.keep(example)
            told = () if conversation.plain or example.texts is not None else hidden(conversation, rendered[0].text)
            for kind, text in once(told):
                account.note(kind, origin, text)
            pieces = enumerate(rendered)
            yield from (TextRow(number, conversation, piece, origin, index > 0) for index, piece in pieces)

    def _taken(self, example: Example, account: Account) -> Example:
        """Return a row with the contents that the template takes: texts, where it renders no parts."""
        conversation = example.conversation
        usual = example.texts is not None or conversation.plain
        if usual or isinstance(self.template, SftplugError) or is_all_text(conversation):
            return example
        taken = as_the_template_takes_it(conversation, partial(self._text, self.template))
        for index in joined_messages(conversation, taken)[:1]:
            account.note(JOINED, example.origin, f"the parts of messages[{index}] become the lines of one text")
        return example.saying(taken)

    def _text(self, template: Template, conversation: Conversation) -> str:
        call = self._call(conversation)
        return template.text(call.messages, call.tools, **call.kwargs)

    def _call(self, conversation: Conversation) -> TemplateArguments:
        return TemplateArguments(
            [message.to_dict() for message in conversation.messages],
            [dict(tool) for tool in conversation.tools] or None,
            {**self.special_tokens, **conversation.template_kwargs},
            frozenset(conversation.template_kwargs),
        )

    def controls(self, tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> Controls:
        """Return the control tokens of `tokenizer` under the template; `words` are the tokens that the recipe adds."""
        template = None if isinstance(self.template, SftplugError) else self.template
        return controls_of(tokenizer, template, self.special_tokens, words)

    def _drop(self, stage: str, example: Example, error: MaskError | TemplateError, account: Account) -> None:
        reasons = error.reasons if isinstance(error, MaskError) and error.reasons else [("", str(error))]
        # The first row's picture is the one that is shown.
        account.picture = account.picture or getattr(error, "picture", ())
        account.drop(stage, example.origin, str(error), reasons)
        self.sample.refuse(example, reasons)

    def stops_itself(self, conversation: Conversation) -> bool:
        """Whether plain text ends in a token that stops."""
        return bool(brings(conversation, self.bos, self._plain_stops())[1])

    def _plain_stops(self) -> frozenset[str]:
        if self._stops is None:
            template = None if isinstance(self.template, SftplugError) else self.template
            eos = str(self.special_tokens.get("eos_token", ""))
            self._stops = self.end_tokens | stops_of(template, self.special_tokens) | {eos}
        return self._stops

    def _plain(self, example: Example, account: Account) -> Rendered:
        account.plain += 1
        account.documents += example.conversation.messages[0].role == "document"
        if example.conversation.tokens is not None:
            return self._of_tokens(example, example.conversation.tokens, account)
        eos = str(self.special_tokens.get("eos_token", ""))
        if not self.policies.plain_controls:
            return render_plain(example.conversation, self.bos, eos)
        own_bos, stop = brings(example.conversation, self.bos, self._plain_stops())
        if own_bos:
            account.note(OWN_BOS, example.origin, f"begins with {self.bos} itself: no second one is added")
        if stop:
            account.note(OWN_STOP, example.origin, f"ends in {stop} itself: no EOS is added")
        return render_plain(example.conversation, self.bos, eos, self._plain_stops())

    def _of_tokens(self, example: Example, given: RowTokens, account: Account) -> Rendered:
        rendered = self.token_texts.rendered(given)
        account.note(OWN_TOKENS, example.origin, rendered.findings[0].text)
        if self.token_texts.last_trained(given) not in (None, *self._plain_stops()):
            account.note("no stop of its own", example.origin, "what is trained of its tokens ends in none that stops")
        return rendered

    def _templated(self, example: Example, account: Account) -> list[Rendered]:
        if isinstance(self.template, SftplugError):
            raise ModelError(str(self.template)) from self.template
        self.templated += 1
        conversation = example.conversation
        self._check_arguments(example, self.template.reads)
        known = self._known(example)
        if known is not None:
            return [known]
        call = self._call(conversation)
        rendered = self.template.render(
            call.messages, call.tools, end_tokens=self.end_tokens, given=call.given, **call.kwargs
        )
        self._compare(self.template, rendered, call)
        if (
            not self.preamble
            and not conversation.tools
            and conversation.messages[0].role not in ("system", "developer")
        ):
            self.preamble = _preamble(rendered)
        if not rendered.findings:
            return [rendered]
        self._judge(rendered, account, example.origin)
        if self.policies.missing_stop == "append_eos" and "no_stop" in _kinds(rendered):
            rendered = rendered.with_stops(self._eos())
        if self.policies.on_divergence != "split" or not _kinds(rendered) & {*DIVERGENT}:
            return [rendered]
        return self.template.split_divergent(
            rendered, call.messages, call.tools, end_tokens=self.end_tokens, given=call.given, **call.kwargs
        )

    def _eos(self) -> str:
        eos = self.special_tokens.get("eos_token")
        if not eos:
            raise ModelError(
                "a turn has no stop token, and the tokenizer has no EOS that `missing_stop: append_eos` could add. "
                "Choose a chat template that ends its turns, or `warn`, which trains without a stop."
            )
        return str(eos)

    def _check_arguments(self, example: Example, reads: frozenset[str]) -> None:
        """Raise for arguments that the template does not read: RowError for those of the row, DataError for others."""
        given = example.conversation.template_kwargs
        if not given:
            return
        # An empty list of tools, which SmolTalk2 has in every row, says nothing that a template could show.
        unread = sorted(name for name in given.keys() - reads if given[name] not in ("", [], {}, ()))
        if own := [name for name in unread if name in example.arguments]:
            column, names = example.arguments_from, ", ".join(f"'{name}'" for name in own)
            paths = ", ".join(f"{column}.{name}" for name in own)
            left_out = f": `ignore: [{paths}]` beside the format leaves out what it cannot show" if column else ""
            reason = f"the row gives arguments ({names}) that chat template '{self.name}' does not read{left_out}."
            raise RowError(column or "template_kwargs", reason)
        if unread:
            raise self._unread(example.origin, unread[0], reads)

    def _unread(self, origin: str, name: str, reads: frozenset[str]) -> DataError:
        known = ", ".join(sorted(reads - self.special_tokens.keys())) or "none"
        hint = did_you_mean(name, reads)
        return DataError(
            f"{origin}: chat template '{self.name}' does not read the argument '{name}'.{hint} It reads: {known}. "
            "Correct `template_kwargs`, or leave it out there."
        )

    def _known(self, example: Example) -> Rendered | None:
        """Return the row without asking the template, if it treats the conversation as it did another."""
        conversation = example.conversation
        # One row in a hundred is rendered by the template, and compared with transformers' own text in `_compare`.
        if conversation.tools or conversation.template_kwargs or not self.seen % COMPARED_FIRST:
            return None
        texts = plain_texts(conversation) if example.texts is None else example.texts
        # The first hundred are rendered, every one: a template that goes wrong with some shape of row should be found
        # early.
        if texts is None or self.seen <= COMPARED_FIRST or isinstance(self.template, SftplugError):
            return None
        roles = [message.role for message in conversation.messages]
        return self.template.fill(roles, texts, (self._arguments, self.end_tokens))

    def _compare(self, template: Template, rendered: Rendered, call: TemplateArguments) -> None:
        """Compare with transformers' own text: always on the first rows, then on a sample."""
        if self.seen > COMPARED_FIRST and self.seen % COMPARED_FIRST:
            return
        if template.text(call.messages, call.tools, **call.kwargs) != rendered.text:
            raise MaskError(f"chat template '{self.name}' renders differently when its parts are told apart")

    def _judge(self, rendered: Rendered, account: Account, origin: str) -> None:
        """Raise MaskError for what stops the run; note the rest in the account."""
        wrong = [finding for finding in rendered.findings if self.policies.refuse(finding)]
        if wrong:
            text = " ".join(finding.text for finding in wrong)
            reasons = [(finding.kind, finding.text) for finding in wrong]
            raise MaskError(text, picture=draw(rendered, wrong), reasons=reasons)
        for kind in sorted(_kinds(rendered)):
            first = next(finding for finding in rendered.findings if finding.kind == kind)
            account.note(kind, origin, first.text)


def draw(rendered: Rendered, wrong: Sequence[Finding]) -> list[tuple[str, str]]:
    """Return the row as (text, style) pieces: what would be trained green, what is wrong red, the rest dim."""
    marked = [(span.start, span.end, "green") for span in rendered.spans]
    marked += [(finding.start, finding.end, "bold red") for finding in wrong if finding.start >= 0]
    cuts = sorted({0, len(rendered.text), *(edge for start, end, _ in marked for edge in (start, end))})
    styles = dict.fromkeys(cuts, "dim")  # of what begins at each cut
    # A finding is drawn over a span: what is wrong in what would be trained is red.
    for start, end, style in marked:
        low, high = bisect_left(cuts, start), bisect_left(cuts, end)
        styles.update(dict.fromkeys(cuts[low:high], style))
    return [(rendered.text[start:end], styles[start]) for start, end in itertools.pairwise(cuts)]


PROSE = 4
"""So many words before the first message are more than the header of a turn."""


def _preamble(rendered: Rendered) -> str:
    """Return the text before what the first message says, if there is prose in it."""
    said = rendered.runs.starts[rendered.runs.own]
    text = rendered.text[: int(said[0])].strip() if len(said) else ""
    words = re.findall(r"[^\W\d_]{2,}", re.sub(r"<[^<>]*>|\[[^\[\]]*\]", " ", text))
    return text if len(words) >= PROSE else ""


def _kinds(rendered: Rendered) -> set[str]:
    return {finding.kind for finding in rendered.findings}


def open_gate(
    chat_template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[str], policies: Policies
) -> ConversationRenderer:
    """Give `tokenizer` the chat template and return the gate for it."""
    # Some tokenizers have a BOS token and do not put it before text.
    with_special = tokenizer("", add_special_tokens=True)["input_ids"]
    bos = str(tokenizer.bos_token) if with_special[:1] == [tokenizer.bos_token_id] else ""
    ends = end_tokens | {str(tokenizer.eos_token)} if tokenizer.eos_token else end_tokens
    name, special = chat_template.type, dict(tokenizer.special_tokens_map)
    template = _template(chat_template, tokenizer)
    if isinstance(template, Template):
        template = _with_its_tokens(template, tokenizer, special, policies)
    return ConversationRenderer(name, template, special, bos, ends, TokenTexts(tokenizer), policies)


def _with_its_tokens(
    template: Template, tokenizer: PreTrainedTokenizerBase, special: Mapping[str, Any], policies: Policies
) -> Template | ModelError:
    """Return the template, or the error when the tokenizer lacks the token that ends its turns; warn of others.

    Some models are trained with turns that begin in such pieces, but none could end one in them.
    """
    lacking = lacking_tokens(template, tokenizer, special)
    if lacking is None:
        return template
    if lacking.ends_turn and policies.missing_stop == "error":
        return ModelError(lacking.sentence(template.name))
    if is_main():
        _log.warning("%s", lacking.sentence(template.name))
    return template


def _template(chat_template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> Template | SftplugError:
    try:
        source = template_source(chat_template, tokenizer)
        template = compile_template(source, name=chat_template.type)
    except PluginError:
        raise  # broken is not the same as absent
    except SftplugError as error:
        return error  # a base model has no template, and plain text needs none
    tokenizer.chat_template = source
    return template
