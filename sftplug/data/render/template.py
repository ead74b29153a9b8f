"""A compiled chat template: conversations in, text with provenance and trained spans out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from sftplug.data.render.bounds import compiled, parsed
from sftplug.data.render.budget import Budget, TooMuch, Unproven
from sftplug.data.render.call import (
    PROBE,
    Call,
    Messages,
    Tools,
    arguments_of,
    assistants_in,
    literals_of,
    make_call,
)
from sftplug.data.render.check import (
    Finding,
    check_interruptions,
    check_iterations,
    check_questions,
    check_spans,
    quote,
)
from sftplug.data.render.enforce import bounded, compiling
from sftplug.data.render.instrument import PlainEnvironment, TracedEnvironment, official_environment
from sftplug.data.render.lost import missing, missing_tools
from sftplug.data.render.marks import Compiled, Marks, compile_traced
from sftplug.data.render.pieces import Layout, lay_out
from sftplug.data.render.questions import Asking, AskingEnvironment, AskingMarks, Field
from sftplug.data.render.rendered import Rendered, continue_prompt, cut_after, lost_stop, to_row
from sftplug.data.render.shape import Shape, Shapes, key_of, learn, texts_of
from sftplug.data.render.spans import Habit, Place, Start, common_start, find_opening, find_start, find_stop, places
from sftplug.data.render.turns import Turn, all_findings, divergence, spans_of
from sftplug.data.render.walk import Walks
from sftplug.errors import TemplateError, TemplateStopped

FLAT = 50
"""How deep a row is nested when it cannot be its fault that Python's stack is exhausted."""
LONGEST_REASON = 1000
"""So many characters are shown of the reason that a template gives for refusing."""


@dataclass(slots=True, eq=False)
class Template:
    """One chat template, compiled twice: as transformers does, and with marks."""

    source: str
    name: str
    budget: Budget = field(default_factory=Budget)
    """What it may still use, whoever renders it."""
    stopped: TemplateStopped | None = None
    """Why it was stopped: it is not tried again."""
    outside: bool = False
    """Whether it does what only another process may try; see `enforce`."""
    _lock: Lock = field(default_factory=Lock)
    _habits: dict[str, Habit | None] = field(default_factory=dict)
    literals: tuple[str, ...] = ()
    """The texts that stand in it."""
    reads: frozenset[str] = frozenset()
    """Names of the arguments that it reads, beyond those that every caller gives."""
    _plain: Any = None
    _traced: Any = None
    _asking: Compiled | None = None
    _shapes: Shapes = field(default_factory=Shapes)
    _walks: Any = None

    def __post_init__(self) -> None:
        """Compile. Raises TemplateError naming the line for a template that is not valid Jinja."""
        with compiling(self.name):
            environment = PlainEnvironment(official_environment(), self.budget)
            tree = parsed(environment, self.source)
            self.reads, self.literals = arguments_of(tree), tuple(literals_of(tree))
            self._plain = environment, compiled(environment, tree)
            self._traced = compile_traced(self.source, TracedEnvironment(official_environment(), self.budget), Marks())
            self._walks = Walks(self.source, self.budget, self._rendering)

    # --- what callers use -------------------------------------------------------------------------------------------

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
        `kwargs` that come from the row: their text can be no control token. A row that the template treats as it did
        another is filled into that row's shape. Raises TemplateError when the template refuses the conversation.
        """
        texts = None if tools else texts_of(messages)
        if texts is None:
            return self.analyse(messages, tools, end_tokens=end_tokens, given=given, **kwargs)
        roles, arguments = [message["role"] for message in messages], (repr(kwargs), end_tokens, *sorted(given))
        rendered = self.fill(roles, texts, arguments)
        if rendered is not None:
            return rendered
        rendered = self.analyse(messages, tools, end_tokens=end_tokens, given=given, **kwargs)
        key = key_of(roles, texts, arguments)
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
        layout = self._layout(call)
        layout.prompt_end = self._walks.prompt_ends(call, layout.text)
        turns = [self._turn(layout, call, index) for index in assistants_in(messages)]
        return to_row(
            layout,
            spans_of(turns),
            [*missing(layout, call, self._layout), *missing_tools(layout, call, self._text), *all_findings(turns)],
        )

    @bounded
    def text(
        self, messages: Messages, tools: Tools = None, *, add_generation_prompt: bool = False, **kwargs: Any
    ) -> str:
        """Return the text that transformers renders, within bounds. Raises TemplateError when the template refuses."""
        return self._text(make_call(messages, tools, kwargs), add_generation_prompt=add_generation_prompt)

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
        layout = self._layout(call, add_generation_prompt=add_generation_prompt)
        if layout.text != self._text(call, add_generation_prompt=add_generation_prompt):
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
        return [replace(rendered, spans=kept), *(self._apart(rendered, call, message) for message in divergent)]

    # --- one turn ---------------------------------------------------------------------------------------------------

    def _turn(self, layout: Layout, call: Call, message: int) -> Turn:
        where = places(layout, message)
        if not where:
            text = f"message {message}: the template prints nothing for it."
            return Turn(message, [], Start(0, "", "", ""), [Finding("not_located", "error", message, text)])
        start = self._start(layout, call, message, where[0])
        if isinstance(start, Finding):
            return Turn(message, [], Start(0, "", "", ""), [start])
        turn = Turn(message, [], start, list(divergence(start, message)))
        habit = self._habit(call)
        for number, stretch in enumerate(where):
            begin = start.at if number == 0 else stretch.first
            stop = self._stop(layout, call, turn, Place(message, begin, begin, stretch.last, stretch.end), habit)
            if stop > begin or number == 0:
                turn.spans.append((begin, stop))
        turn.findings += check_spans(layout, message, turn.spans, start.at)
        turn.findings += check_iterations(layout, message)
        turn.findings += check_questions(layout, message, start.at, call.users)
        turn.findings += check_interruptions(layout, message, call.answers)
        return turn

    def _start(self, layout: Layout, call: Call, message: int, where: Place) -> Start | Finding:
        if (end := layout.prompt_end(message)) is not None:
            return Start(end, "", "", "")
        before = call.until(message)
        try:
            prompt = self._text(before, add_generation_prompt=True)
        except TemplateError:
            # A conversation that the assistant opens has no prompt to render; its header must be the usual one.
            return self._start_by_header(layout, call, message, where)
        if layout.text.startswith(prompt):
            return Start(len(prompt), "", "", "")
        traced = self._layout(before, add_generation_prompt=True)
        asks = self._generation_prompt(call)
        start = None if asks is None else find_start(layout, where, traced, asks, self._goes_on(before, prompt, asks))
        return start or self._start_by_header(layout, call, message, where)

    def _goes_on(self, before: Call, prompt: str, asks: str) -> bool:
        """Whether the template, after a tool's answer, asks for more of the turn and not for a new one."""
        if not before.messages or before.messages[-1].get("role") != "tool":
            return False
        here = prompt[common_start(self._text(before), prompt) :]
        return common_start(here.lstrip(), asks.lstrip()) == 0

    def _start_by_header(self, layout: Layout, call: Call, message: int, where: Place) -> Start | Finding:
        header = self._generation_prompt(call)
        start = None if header is None else find_opening(layout, where, header)
        if start is not None:
            return start
        shown = quote(layout.text[max(0, where.first - 40) : where.first])
        text = (
            f"message {message}: the template cannot render a prompt for it, and its header {shown} "
            f"is not the generation prompt {quote(header or '')}."
        )
        return Finding("not_located", "error", message, text, where.first, where.last)

    def _generation_prompt(self, call: Call) -> str | None:
        """Return what the template adds for a reply to a user, the white space of the turn before left out.

        None when it cannot render a question alone.
        """
        probe = replace(call, messages=[dict(PROBE)], tools=None)
        try:
            without, prompt = self._text(probe), self._text(probe, add_generation_prompt=True)
        except TemplateError:
            return None
        return prompt[common_start(without, prompt) :]

    def _stop(self, layout: Layout, call: Call, turn: Turn, where: Place, habit: Habit | None) -> int:
        stop = find_stop(layout, where, where.first, habit, call.ends)
        end = stop.at
        if turn.message + 1 < len(call.messages) and call.messages[turn.message + 1].get("role") == "tool":
            end = self._stop_before_tool(layout, call, turn.message, end, habit)
        if end == stop.at and stop.by == "none":
            end = self._stop_by_renders(layout, call, turn.message, end)
        if end == stop.at and stop.by == "none" and (end > where.first or not turn.spans):
            text = f"message {turn.message}: no token marks its end; the model would never learn to stop."
            turn.findings.append(Finding("no_stop", "policy", turn.message, text, where.first, end))
        return end

    def _stop_by_renders(self, layout: Layout, call: Call, message: int, last: int) -> int:
        """Return the end of what stands after the turn whatever comes next, where no mark says whose text it is."""
        try:
            alone, followed = self._text(call.until(message + 1)), self._text(call.followed(message))
        except TemplateError:
            return last
        said, rest = layout.text[:last], layout.text[last:]
        if not (alone.startswith(said) and followed.startswith(said)):
            return last
        tail = rest[: common_start(rest, followed[last:])]
        return last + len(tail[: common_start(tail, alone[last:])].rstrip())

    def _stop_before_tool(self, layout: Layout, call: Call, message: int, end: int, habit: Habit | None) -> int:
        """Return the end of a turn that calls a tool: some templates show its stop only when it is the last turn."""
        if habit is not None and habit.by == "own" and layout.text.endswith(habit.tail.strip(), 0, end):
            return end
        try:
            alone = self._text(call.until(message + 1)).rstrip()
        except TemplateError:
            return end
        extended = alone[:end] == layout.text[:end] and layout.text.startswith(alone)
        return len(alone) if extended and len(alone) > end else end

    def _apart(self, rendered: Rendered, call: Call, message: int) -> Rendered:
        """Return the row that shows the turn of `message` as inference does."""
        prompt = self._layout(call.until(message), add_generation_prompt=True)
        alone = call.until(message + 1)
        text = "".join(rendered.text[span.start : span.end] for span in rendered.spans if span.message == message)
        try:
            layout = self._layout(alone)
        except TemplateError:
            return continue_prompt(prompt, rendered, message)
        if not layout.text.startswith(prompt.text):
            return continue_prompt(prompt, rendered, message)
        turn = self._turn(layout, alone, message)
        if any(finding.severity == "error" for finding in turn.findings) or not turn.spans:
            return continue_prompt(prompt, rendered, message)
        end = turn.spans[-1][1]
        row = to_row(layout, spans_of([turn]))
        return cut_after(row, end, lost_stop(row.text[row.spans[-1].start : end], text))

    # --- the whole --------------------------------------------------------------------------------------------------

    def _habit(self, call: Call) -> Habit | None:
        """Return how the template ends a turn, learned from a probe; None when it refuses the probe."""
        key = repr(sorted(call.kwargs.items(), key=lambda item: item[0]))
        if key not in self._habits:
            self._habits[key] = self._learn_habit(call)
        return self._habits[key]

    def _learn_habit(self, call: Call) -> Habit | None:
        probe = [("user", "sftplug asks"), ("assistant", "sftplug replies"), ("user", "sftplug asks again")]
        messages = [{"role": role, "content": text} for role, text in probe]
        try:
            layout = self._layout(make_call(messages, None, call.kwargs, frozenset()))
        except TemplateError:
            return None
        where = places(layout, 1)
        if not where:
            return None
        stop = find_stop(layout, where[0], where[0].first, None, call.ends)
        return Habit(stop.by, layout.text[where[0].last : stop.at])

    def _text(self, call: Call, *, add_generation_prompt: bool = False) -> str:
        """Return transformers' text of a call whose data is already as transformers gives it to templates."""
        variables = {"documents": None, "add_generation_prompt": add_generation_prompt, **call.kwargs}
        _, template = self._plain
        with self._rendering(call):
            return str(template.render(messages=call.messages, tools=call.tools, **variables))

    def _learn(self, texts: Mapping[Field, str], rendered: Rendered, call: Call) -> Shape | None:
        """Return the shape of a row, learned by rendering it and its prompts with texts that note what is asked."""
        if self._asking is None:
            environment = AskingEnvironment(official_environment(), self.budget)
            self._asking = compile_traced(self.source, environment, AskingMarks())
        asking = self._asking[0].active
        assert isinstance(asking, Asking)
        ask = partial(self._layout, compiled=self._asking)
        prompts = [partial(ask, call.until(turn), add_generation_prompt=True) for turn in assistants_in(call.messages)]
        try:
            return learn(texts, rendered, partial(ask, call), prompts, asking)
        except TemplateError:
            return None

    def _layout(self, call: Call, *, add_generation_prompt: bool = False, compiled: Compiled | None = None) -> Layout:
        environment, template = compiled or self._traced
        variables = {"documents": None, "add_generation_prompt": add_generation_prompt, **call.kwargs}
        given = {"tools": call.tools, **{name: call.kwargs[name] for name in call.given}}
        with self._rendering(call):
            return lay_out(template, environment, call.messages, variables, given)

    @contextmanager
    def _rendering(self, call: Call) -> Iterator[None]:
        """Count what a render uses; an error of the template's own is its way of refusing the conversation."""
        with self._lock:
            self.budget.begin(call.size)
            try:
                yield
            except (TooMuch, Unproven):
                raise
            except RecursionError as error:
                if call.depth <= FLAT:
                    raise TooMuch("its macros, loops or blocks call themselves too deep") from error
                raise TemplateError(self._refusal(error, call.messages)) from error
            except MemoryError as error:
                raise TooMuch("it takes more memory than it may") from error
            except Exception as error:
                # A template is a program of its author's: whatever it raises is its way of refusing.
                raise TemplateError(self._refusal(error, call.messages)) from error
            finally:
                self.budget.end()

    def _refusal(self, error: Exception, messages: Messages) -> str:
        roles = ", ".join(str(message.get("role")) for message in messages)
        return f"chat template '{self.name}' refuses a conversation of {roles}: {str(error)[:LONGEST_REASON]}"


@lru_cache(maxsize=256)
def compile_template(source: str, name: str = "template") -> Template:
    """Return the compiled template, cached by its source. Raises TemplateError for what is not valid Jinja."""
    return Template(source, name)
