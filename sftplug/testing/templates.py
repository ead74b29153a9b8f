"""The laws of chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sftplug.errors import PluginError, SftplugError
from sftplug.plugin.calls import template_source
from sftplug.plugin.components import ChatTemplate
from sftplug.testing.component import check_component
from sftplug.testing.law import Breach, check, check_drawn, demand, make, need_hypothesis, shown
from sftplug.testing.proofs import proving

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.data.render import Rendered, Template

_CONTROL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""Llama 3's; the tiny tokenizer has those of ChatML."""


@dataclass
class TemplateTrial:
    """A chat template, a tokenizer for it, and messages to render."""

    template: ChatTemplate
    tokenizer: Any
    messages: Sequence[Mapping[str, Any]] = (
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
    )

    @cached_property
    def compiled(self) -> Template:
        """The template, compiled."""
        from sftplug.data.render import compile_template

        return compile_template(template_source(self.template, self.tokenizer), name=self.template.type)

    @cached_property
    def row(self) -> Rendered:
        """The messages, rendered with provenance."""
        eos = self.tokenizer.eos_token
        return self.compiled.analyse(self.messages, end_tokens=frozenset({eos} if eos else ()), **self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """What templates see as ``bos_token``, ``eos_token`` …"""
        return dict(self.tokenizer.special_tokens_map)

    def plain(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> str:
        """Return the text that transformers renders."""
        return self.compiled.text(messages, add_generation_prompt=prompt, **self.arguments)


@proving
def check_template(
    component: type[ChatTemplate], tokenizer: PreTrainedTokenizerBase | None = None, /, **options: Any
) -> None:
    """Hold a chat template to its laws, on conversations of user and assistant.

    Without a `tokenizer` it is given a small one that has an EOS token and the control tokens of ChatML and Llama 3.
    Raises LawBroken.
    """
    need_hypothesis()
    check_component(component, **options)
    made = make(component, options)
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    check(made, (gives_the_same_source, compiles), TemplateTrial(made, tokenizer))
    from sftplug.testing.draw import exchanges

    check_drawn(made, LAWS, exchanges().map(lambda drawn: TemplateTrial(made, tokenizer, drawn)), examples=30)


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer of 1024 tokens with an EOS token and the control tokens of ChatML and Llama 3."""
    from sftplug.model.loading import load_tokenizer
    from sftplug.testing.runs import load_tiny

    tokenizer = load_tokenizer(load_tiny().recipe)
    tokenizer.add_tokens(list(_CONTROL), special_tokens=True)
    return tokenizer


def gives_the_same_source(trial: TemplateTrial) -> None:
    """``source`` returns the same text each time, and leaves the tokenizer alone."""
    size, own = len(trial.tokenizer), trial.tokenizer.chat_template
    try:
        first, second = (template_source(trial.template, trial.tokenizer) for _ in range(2))
    except PluginError:
        raise
    except SftplugError as error:
        fix = "give the check a tokenizer that suits the template: check_template(MyTemplate, tokenizer)."
        raise Breach(f"the template refuses the tokenizer: {error}", fix) from error
    demand(
        bool(first.strip()) and first == second,
        f"{shown(first, 100)}, and then {shown(second, 100)}",
        "return the text of a file that is shipped with the plugin.",
    )
    demand(
        (len(trial.tokenizer), trial.tokenizer.chat_template) == (size, own),
        "the tokenizer has another chat template or other tokens than before",
        "return the source; the core gives it to the tokenizer.",
    )


def compiles(trial: TemplateTrial) -> None:
    """The source is Jinja that transformers' sandbox compiles, and renders a question and its answer."""
    try:
        trial.plain(trial.messages)
    except SftplugError as error:
        raise Breach(
            str(error), "fix the template at that place; transformers documents what templates may use."
        ) from error


def shows_what_was_said(trial: TemplateTrial) -> None:
    """Rendered with provenance the text is transformers' own, and holds what every message says."""
    text, plain = trial.row.text, trial.plain(trial.messages)
    demand(
        text == plain,
        f"{shown(plain)} became {shown(text)} when its parts were told apart",
        "do not branch on the type or the identity of texts.",
    )
    lost = [message for message in trial.messages if message["content"].strip() not in text]
    demand(not lost, f"{shown(lost[:1])} is not in {shown(text)}", "print `message.content` of every message.")


def passes_the_check_of_spans(trial: TemplateTrial) -> None:
    """What the model must produce is found in every turn, with a token that ends it, and the check finds no fault."""
    # A template may print earlier turns otherwise than at inference, as those do that leave out old reasoning. That is
    # no fault of spans: such a turn gets a row of its own.
    findings = [finding.text for finding in trial.row.findings if not finding.kind.startswith("divergent")]
    demand(
        not findings,
        f"{' '.join(findings)} The row: {shown(trial.row.text)}",
        "write an end after every assistant message, such as `{{ eos_token }}`, and nobody else's text inside.",
    )
    turns = sum(message["role"] == "assistant" for message in trial.messages)
    demand(
        len({span.message for span in trial.row.spans}) == turns,
        f"{len(trial.row.spans)} trained spans in {turns} turns",
        "print every assistant message inside the loop over `messages`.",
    )


def prompt_is_a_prefix(trial: TemplateTrial) -> None:
    """Each assistant's turn begins where the prompt of inference ends: the prompt is what stands before it."""
    for span in trial.row.spans:
        before, prompt = trial.row.text[: span.start], trial.plain(trial.messages[: span.message], prompt=True)
        demand(
            before == prompt,
            f"the prompt before message {span.message} is {shown(prompt)}, and the row has {shown(before)}",
            "end the template with the assistant's header `{% if add_generation_prompt %}`, and render earlier turns "
            "the same whether or not others follow.",
        )


LAWS = (shows_what_was_said, passes_the_check_of_spans, prompt_is_a_prefix)
