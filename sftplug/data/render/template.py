"""A compiled chat template: conversations in, text with provenance and trained spans out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

from sftplug.data.render.budget import Budget
from sftplug.data.render.call import Call, Messages, Tools, assistants_in, make_call
from sftplug.data.render.enforce import bounded
from sftplug.data.render.finder import TurnFinder
from sftplug.data.render.lost import missing, missing_tools
from sftplug.data.render.pieces import Layout
from sftplug.data.render.prompts import Prompts, Walks
from sftplug.data.render.questions import Field
from sftplug.data.render.rendered import Rendered, to_row
from sftplug.data.render.renderer import Renderer
from sftplug.data.render.shape import Shape, Shapes, key_of, learn, texts_of
from sftplug.data.render.turns import Turn, all_findings, spans_of
from sftplug.errors import TemplateError, TemplateStopped


@dataclass(slots=True, eq=False)
class Template:
    """One chat template."""

    source: str
    name: str
    budget: Budget = field(default_factory=Budget)
    """What it may still use, whoever renders it."""
    stopped: TemplateStopped | None = None
    """Why it was stopped: it is not tried again."""
    outside: bool = False
    """Whether it does what only another process may try; see `enforce`."""
    _renderer: Renderer = field(init=False)
    _finder: TurnFinder = field(init=False)
    _walks: Walks = field(init=False)
    _shapes: Shapes = field(default_factory=Shapes)

    def __post_init__(self) -> None:
        """Compile. Raises TemplateError naming the line for a template that is not valid Jinja."""
        self._renderer = Renderer(self.source, self.name, self.budget)
        self._walks = Walks(self._renderer)
        self._finder = TurnFinder(self._renderer, self._walks)

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts that stand in it."""
        return self._renderer.literals

    @property
    def reads(self) -> frozenset[str]:
        """Names of the arguments that it reads, beyond those that every caller gives."""
        return self._renderer.reads

    @bounded
    def render(
        self,
        messages: Messages,
        tools: Tools = None,
        *,
        end_tokens: frozenset[str] = frozenset(),
        given: frozenset[str] = frozenset(),
        **kwargs: Any,
    ) -> Rendered:
        """Render `messages` in one piece, with the spans of every assistant turn and what the check found.

        `end_tokens` are the texts of the model's end tokens when they are known, and `given` the names of those of
        `kwargs` that come from the row: their text cannot be a control token. A row that the template treats as it did
        another is filled into that row's shape. Raises TemplateError when the template refuses the conversation.
        """
        # A shape is found by roles and arguments, and tools are no part of that: a row with them is always analysed in
        # full.
        texts = None if tools else texts_of(messages)
        if texts is None:
            return self.analyse(messages, tools, end_tokens=end_tokens, given=given, **kwargs)
        roles, arguments = [message["role"] for message in messages], (repr(kwargs), end_tokens, *sorted(given))
        rendered = self.fill(roles, texts, arguments)
        if rendered is not None:
            return rendered
        rendered = self.analyse(messages, tools, end_tokens=end_tokens, given=given, **kwargs)
        key = key_of(roles, texts, arguments)
        # A shape is filled in without a check, so only a row in which the check has found nothing may become one.
        if not rendered.findings and self._shapes.worth_learning(key):
            shape = self._learn(texts, rendered, make_call(messages, tools, kwargs, end_tokens, given))
            if shape is not None:
                self._shapes.add(key, shape)
        return rendered

    def fill(self, roles: Sequence[str], texts: Mapping[Field, str], arguments: Hashable) -> Rendered | None:
        """Return the row of messages with `roles` and `texts`, if its shape is known.

        `arguments` are the template's other arguments as ``(repr(kwargs), end_tokens)``.
        """
        shape = self._shapes.find(key_of(roles, texts, arguments), texts)
        return None if shape is None else shape.fill(texts)

    @bounded
    def analyse(
        self,
        messages: Messages,
        tools: Tools = None,
        *,
        end_tokens: frozenset[str] = frozenset(),
        given: frozenset[str] = frozenset(),
        **kwargs: Any,
    ) -> Rendered:
        """Render as `render` does, from nothing: every piece traced, the prompt of every turn rendered."""
        call = make_call(messages, tools, kwargs, end_tokens, given)
        layout = self._renderer.layout(call)
        prompts = Prompts(self._renderer, self._walks, call, layout.text)
        turns = self._turns(layout, prompts)
        return to_row(
            layout,
            spans_of(turns),
            [
                *missing(layout, prompts),
                *missing_tools(layout, call, self._renderer.text),
                *all_findings(turns),
            ],
        )

    @bounded
    def text(
        self, messages: Messages, tools: Tools = None, *, add_generation_prompt: bool = False, **kwargs: Any
    ) -> str:
        """Return the text that transformers renders, within bounds. Raises TemplateError when the template refuses."""
        return self._renderer.text(make_call(messages, tools, kwargs), add_generation_prompt=add_generation_prompt)

    @bounded
    def prompt(
        self,
        messages: Messages,
        tools: Tools = None,
        *,
        add_generation_prompt: bool = True,
        given: frozenset[str] = frozenset(),
        **kwargs: Any,
    ) -> Rendered:
        """Return what the model is shown after `messages`: a text of which nothing is trained.

        Raises TemplateError when the template refuses, and when what it writes cannot be told from what it is given.
        """
        call = make_call(messages, tools, kwargs, given=given)
        layout = self._renderer.layout(call, add_generation_prompt=add_generation_prompt)
        # Rows are compared with the plain text by `ConversationRenderer`, the first of them and then a sample. A prompt
        # stands alone: it is compared each time.
        if layout.text != self._renderer.text(call, add_generation_prompt=add_generation_prompt):
            raise TemplateError(f"chat template '{self.name}' renders differently when its parts are told apart")
        return to_row(layout, [])

    @bounded
    def split_divergent(
        self,
        rendered: Rendered,
        messages: Messages,
        tools: Tools = None,
        *,
        end_tokens: frozenset[str] = frozenset(),
        given: frozenset[str] = frozenset(),
        **kwargs: Any,
    ) -> list[Rendered]:
        """Return `rendered` without the spans of its divergent turns, and one row for each of those turns.

        The row of a turn is what inference shows the model, and then what the model must produce.
        """
        call = make_call(messages, tools, kwargs, end_tokens, given)
        marked = {finding.message for finding in rendered.findings if finding.kind.startswith("divergent")}
        divergent = [message for message in assistants_in(messages) if message in marked]
        kept = tuple(span for span in rendered.spans if span.message not in divergent)
        # Of the turns 1, 3 and 5, where 3 is divergent, the row trains 1 and 5 and shows 3 as context only. The second
        # row is the prompt of 3 as inference shows it, and then turn 3, which alone is trained there.
        return [replace(rendered, spans=kept), *(self._finder.apart(rendered, call, message) for message in divergent)]

    def _turns(self, layout: Layout, prompts: Prompts) -> list[Turn]:
        turns = []
        for message in reversed(prompts.call.assistants):  # what a longer prompt did, a shorter one often does too
            prompts.afford(message)
            turns.append(self._finder.turn(layout, prompts, message))
        return turns[::-1]

    def _learn(self, texts: Mapping[Field, str], rendered: Rendered, call: Call) -> Shape | None:
        """Return the shape of a row, learned by rendering it and its prompts with texts that note what is asked."""
        asking, ask = self._renderer.asking()
        # What a template asks to render a prompt decides where spans begin, as much as what it asks to render the
        # whole.
        prompts = [partial(ask, call.until(turn), add_generation_prompt=True) for turn in assistants_in(call.messages)]
        try:
            return learn(texts, rendered, partial(ask, call), prompts, asking)
        except TemplateError:
            return None


# A template learns shapes and turn ends as it renders: whoever compiles the same source again gets them too.
@lru_cache(maxsize=256)
def compile_template(source: str, name: str = "template") -> Template:
    """Return the compiled template, cached by its source. Raises TemplateError for what is not valid Jinja."""
    return Template(source, name)
