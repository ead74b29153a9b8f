"""A chat template compiled twice, as transformers does and with marks, and what it renders within its budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

from sftplug.data.render.bounds import compiled, parsed
from sftplug.data.render.budget import Budget, TooMuch, Unproven
from sftplug.data.render.call import Call, Messages, arguments_of, literals_of
from sftplug.data.render.enforce import compiling
from sftplug.data.render.instrument import PlainEnvironment, TracedEnvironment, official_environment
from sftplug.data.render.marks import Compiled, Marks, compile_traced
from sftplug.data.render.pieces import Layout, lay_out
from sftplug.data.render.questions import QuestionLog, RecordingEnvironment, RecordingMarks
from sftplug.errors import TemplateError

FLAT = 50
"""How deep a row is nested when it cannot be its fault that Python's stack is exhausted."""
LONGEST_REASON = 1000
"""So many characters are shown of the reason that a template gives for refusing."""


@dataclass(slots=True, eq=False)
class Renderer:
    """One compiled chat template."""

    source: str
    name: str
    budget: Budget = field(default_factory=Budget)
    """What it may still use, whoever renders it."""
    literals: tuple[str, ...] = ()
    """The texts that stand in it."""
    reads: frozenset[str] = frozenset()
    """Names of the arguments that it reads, beyond those that every caller gives."""
    _lock: Lock = field(default_factory=Lock)
    _plain: Any = None
    _traced: Any = None
    _asking: Compiled | None = None

    def __post_init__(self) -> None:
        """Compile. Raises TemplateError naming the line for a template that is not valid Jinja."""
        with compiling(self.name):
            environment = PlainEnvironment(official_environment(), self.budget)
            tree = parsed(environment, self.source)
            self.reads, self.literals = arguments_of(tree), tuple(literals_of(tree))
            self._plain = compiled(environment, tree)
            self._traced = compile_traced(self.source, TracedEnvironment(official_environment(), self.budget), Marks())

    def text(self, call: Call, *, add_generation_prompt: bool = False) -> str:
        """Return transformers' text of a call whose data is already as transformers gives it to templates."""
        variables = {"documents": None, "add_generation_prompt": add_generation_prompt, **call.kwargs}
        with self.rendering(call):
            return str(self._plain.render(messages=call.messages, tools=call.tools, **variables))

    def layout(self, call: Call, *, add_generation_prompt: bool = False, compiled: Compiled | None = None) -> Layout:
        """Return the text of a call, and who wrote each piece of it."""
        environment, template = compiled or self._traced
        variables = {"documents": None, "add_generation_prompt": add_generation_prompt, **call.kwargs}
        given = {"tools": call.tools, **{name: call.kwargs[name] for name in call.given}}
        with self.rendering(call):
            return lay_out(template, environment, call.messages, variables, given)

    def asking(self) -> tuple[QuestionLog, partial[Layout]]:
        """Return what renders as `layout` does with texts that note what is asked of them, and where they note it."""
        if self._asking is None:
            environment = RecordingEnvironment(official_environment(), self.budget)
            self._asking = compile_traced(self.source, environment, RecordingMarks())
        asking = self._asking[0].active
        assert isinstance(asking, QuestionLog)
        return asking, partial(self.layout, compiled=self._asking)

    @contextmanager
    def rendering(self, call: Call) -> Iterator[None]:
        """Count what a render uses; an error of the template's own is its way of refusing the conversation."""
        # One render at a time: environment, budget and the active message are those of the template, not of a thread.
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
