"""Render the prompts of a conversation's turns one after the other, running only what differs between them.

Inference shows the model ``T(m[:i])`` before turn ``i``; to render that for each of N turns takes N renders of up to N
messages. But most of what they print is the same. So the whole conversation is rendered once, and of each turn of a
loop outside of all others it is written down what it read, kept and printed. In the render of a prompt, turns of which
it is proven that they would do the same (see `traces`) do not run: what they printed and kept is taken over.

A turn reads what the template keeps in namespaces, the variables set before the loop, and the messages. Those are
seen through `View`, which knows how many there are and notes who asks (see `watched`). What a template does with them
beyond that raises `NotRepeatable`: then nothing is proven, and its prompts are rendered one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import jinja2

from sftplug.data.render.bounds import compiled, parsed
from sftplug.data.render.budget import Budget, Unproven
from sftplug.data.render.call import Call
from sftplug.data.render.following import LoopMemory, PlainFollowing, TracedFollowing
from sftplug.data.render.instrument import official_environment
from sftplug.data.render.marks import Marks
from sftplug.data.render.output import PromptText
from sftplug.data.render.paths import can_be_followed, watch
from sftplug.data.render.pieces import pieces_of, trace_given, trace_message
from sftplug.data.render.questions import NotRepeatable
from sftplug.data.render.record import Record
from sftplug.data.render.view import View
from sftplug.errors import TemplateError

Rendering = Callable[[Call], AbstractContextManager[None]]
"""Counts what a render uses, and raises TemplateError where the template refuses the conversation."""


@dataclass(slots=True)
class Walk:
    """A template compiled to be followed; the texts tell who wrote them if it is `traced`."""

    environment: PlainFollowing | TracedFollowing
    template: jinja2.Template
    rendering: Rendering

    @classmethod
    def through(cls, source: str, budget: Budget, rendering: Rendering, *, traced: bool) -> Walk | None:
        """Return the walk through `source`; None for a template that cannot be followed."""
        kind = TracedFollowing if traced else PlainFollowing
        environment: PlainFollowing | TracedFollowing = kind(official_environment(), budget)
        tree = parsed(environment, source)
        if not can_be_followed(tree):
            return None
        tree = watch(Marks().visit(tree) if traced else tree)
        return cls(environment, compiled(environment, tree), rendering)

    def begin(self, call: Call, text: str, *, add_generation_prompt: bool) -> FollowedConversation | None:
        """Return the conversation of `call`, whose `text` it is, rendered whole; None where nothing is proven."""
        variables = {"documents": None, "add_generation_prompt": add_generation_prompt, **call.kwargs}
        messages: Sequence[Any] = call.messages
        variables["tools"] = call.tools
        environment = self.environment
        if isinstance(environment, TracedFollowing):
            environment.owners.clear()
            environment.given.clear()
            # Copied once: every prompt is rendered over a `View` of these, so their ids, which tell the owners, stay
            # valid.
            messages = [trace_message(message, index, environment) for index, message in enumerate(messages)]
            given = {"tools": call.tools, **{name: call.kwargs[name] for name in call.given}}
            variables |= {name: trace_given(value, environment) for name, value in given.items()}
        whole = FollowedConversation(self, call, text, messages, variables)
        # The whole conversation first: this fills `memory`, and every prompt takes over what it can from there.
        return None if whole.until(len(messages)) is None else whole


@dataclass(slots=True)
class FollowedConversation:
    """A conversation of which the prompts are rendered."""

    walk: Walk
    call: Call
    text: str
    messages: Sequence[Any]
    variables: Mapping[str, Any]
    memory: LoopMemory = field(default_factory=dict)
    ran: int = 0
    """How many turns of loops ran that are in no other loop."""

    def until(self, message: int) -> PromptText | None:
        """Return what the template prints of the messages before `message`; None where that is not proven.

        Raises TemplateError where the template refuses them.
        """
        environment, output = self.walk.environment, PromptText(self.text)
        traced = isinstance(environment, TracedFollowing)
        record = Record(message, output)
        try:
            with self.walk.rendering(self.call.until(message)), environment.following(record, self.memory):
                messages = View(self.messages, record)
                context = self.walk.template.new_context({**self.variables, "messages": messages})
                for text in self.walk.template.root_render_func(context):
                    output.add(text, [*pieces_of(text, output.length, environment.active)] if traced else ())
        except TemplateError as error:
            # ``raise_exception`` raises just this class. Any other error may come of a `View` that is no list, and
            # proves nothing.
            if type(error.__cause__) is jinja2.TemplateError:  # of the template's own making
                raise
            return None
        except (NotRepeatable, Unproven):
            return None
        finally:
            self.ran += record.ran
        return output
