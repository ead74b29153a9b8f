"""Ways out for rows that are not rendered safely: options that let them through, and templates tried on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sftplug.data.control_tokens import lacking_tokens
from sftplug.data.convert import Example
from sftplug.data.render import compile_template
from sftplug.data.repairs import Repairs
from sftplug.errors import RowError, SftplugError
from sftplug.plugin.calls import template_source
from sftplug.plugin.components import ChatTemplate
from sftplug.types.ledger import Account
from sftplug.types.reasons import RowGroup, normal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.data.rendering import ConversationRenderer

KEPT = 20
"""So many rows are kept for each reason, and of those that pass: what is offered is tried on them."""
OPTIONS: Mapping[str, str] = {
    "no_stop": "`spans.missing_stop: append_eos` adds the tokenizer's EOS (`warn` trains without a stop)",
    "divergent_header": "`spans.on_divergence: split` trains such turns in rows of their own",
    "divergent_context": "`spans.on_divergence: split` trains such turns in rows of their own",
    "dropped_reasoning": "`spans.dropped_reasoning: warn` trains without the reasoning",
    "dropped_tools": "`spans.dropped_tools: warn` trains without the tools",
}
"""Kind of finding -> the option that allows it."""

_REPAIRS = (
    (Repairs("into_user"), "`spans.system: into_user` puts what the system turn says at the head of the user's turn"),
    (Repairs("drop"), "`spans.system: drop` leaves the system turn out"),
    (Repairs(merge_turns=True), "`spans.merge_turns: true` makes neighbouring turns of one role one"),
)


@dataclass(slots=True)
class RowSample:
    """The first rows that passed, and the first that were refused, by reason."""

    passed: list[Example] = field(default_factory=list)
    refused: dict[str, list[Example]] = field(default_factory=dict)

    def keep(self, example: Example) -> None:
        """Keep a row that passed."""
        if len(self.passed) < KEPT:
            self.passed.append(example)

    def refuse(self, example: Example, reasons: Sequence[tuple[str, str]]) -> None:
        """Keep a row that was refused."""
        for kind, text in reasons:
            kept = self.refused.setdefault(f"{kind}: {normal(text)}", [])
            if len(kept) < KEPT and (not kept or kept[-1] is not example):
                kept.append(example)


@dataclass(frozen=True, slots=True)
class Ways:
    """Finds ways out."""

    gate: ConversationRenderer
    tokenizer: PreTrainedTokenizerBase
    templates: Sequence[ChatTemplate]
    """Other chat templates that the recipe could name."""

    def of(self, group: RowGroup) -> Iterator[str]:
        """Yield what lets the rows of `group` through, each as a sentence without its end."""
        examples = self.gate.sample.refused.get(f"{group.kind}: {normal(group.text)}", [])
        others = self.gate.sample.passed
        yield from self._repairs(examples, others)
        for template in self.templates:
            if examples and template.type != self.gate.name and self._renders(template, [*examples, *others]):
                tried = f"{len(examples)} of these rows" + f" and {len(others)} of the others" * bool(others)
                yield f"`chat_template: {template.type}` renders them (tried on {tried})"
                break
        if group.kind in OPTIONS:
            yield OPTIONS[group.kind]

    def _repairs(self, examples: Sequence[Example], others: Sequence[Example]) -> Iterator[str]:
        """Yield the repairs that let these rows through, and the others as before."""
        for repairs, way in _REPAIRS:
            try:
                done = [repairs.apply(example.conversation) for example in (*examples, *others)]
            except RowError:
                continue
            repaired = [
                example.saying(conversation)
                for example, (conversation, _) in zip((*examples, *others), done, strict=True)
            ]
            if examples and all(what for _, what in done[: len(examples)]) and self._passes(self.gate, repaired):
                yield way

    def _renders(self, template: ChatTemplate, examples: Sequence[Example]) -> bool:
        """Whether `template` goes together with the tokenizer and renders these rows safely."""
        try:
            compiled = compile_template(template_source(template, self.tokenizer), name=template.type)
            if lacking_tokens(compiled, self.tokenizer, self.gate.special_tokens) is not None:
                return False
            return self._passes(replace(self.gate, name=template.type, template=compiled), examples)
        except SftplugError:
            return False

    def _passes(self, gate: ConversationRenderer, examples: Sequence[Example]) -> bool:
        """Whether all rows are rendered safely."""
        account, trial = Account(""), replace(gate, seen=0, sample=RowSample())
        try:
            return all([*trial.rows(example, account)] for example in examples) and not account.dropped
        except SftplugError:
            return False
