"""The prompts of all turns from one render, where the template lets that be proven.

Inference shows the model ``T(m[:i])`` before turn ``i``; to render that for each of N turns takes N renders of up to N
messages. But a template is a program, and most go through the messages once, from the front. Until such a program asks
for message ``i`` it cannot know whether there is one, so up to there the prompt of turn ``i`` is the text of the whole
conversation. What it prints after the last message depends on what it has kept, and only a `namespace` keeps anything
beyond the body of a loop: two prompts whose namespaces hold the same end in the same text, which is rendered for one.

`Walked` stands for the list of messages and notes how far the template has asked. Asked for anything else (how many
there are, the last one), it raises `Opaque`: then nothing is proven, and the prompts are rendered one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from sftplug.data.render.bounds import compiled
from sftplug.data.render.budget import Budget, Unproven
from sftplug.data.render.call import Call, assistants_in
from sftplug.data.render.instrument import PlainEnvironment, official_environment
from sftplug.data.render.pieces import unknown
from sftplug.data.render.questions import Opaque
from sftplug.errors import TemplateError

MANY = 8
"""From so many turns on it is worth to ask for a proof."""
ENDINGS = 16
"""So many endings of prompts are rendered; a template with more of them keeps a count, say."""
MOST = 2_000_000
"""So many messages are rendered for the prompts of one conversation, which takes some 20 seconds."""
_AHEAD = frozenset({"last", "nextitem", "length", "revindex", "revindex0"})
"""What a loop knows of the messages to come."""
_LAZY = frozenset(
    {"map", "select", "reject", "selectattr", "rejectattr", "batch", "slice", "items", "reverse", "unique"}
)
"""Filters whose result changes when it is read, and so keeps something, as a `namespace` does."""
_KEEPING = frozenset({"cycler", "joiner"})
"""Globals that do."""

Rendering = Callable[[Call], AbstractContextManager[None]]
"""Counts what a render uses, and raises TemplateError where the template refuses the conversation."""
State = tuple[tuple[int, str, type, Any], ...]
"""What all namespaces hold."""


@dataclass(slots=True)
class Pass:
    """One loop over the messages."""

    at: dict[int, tuple[int, State]] = field(default_factory=dict)
    """Message -> how much had been printed, and what was kept, when the loop asked for it."""
    asked: int = -1
    """The last message that it asked for."""
    first: int = 0
    """The message that it began with."""
    end: tuple[int, State] | None = None
    """The same when it had none left."""


@dataclass(slots=True)
class Record:
    """What a template asked of the messages in one render."""

    turns: frozenset[int] = frozenset()
    """The messages before which inference prompts."""
    printed: int = 0
    passes: list[Pass] = field(default_factory=list)
    latest: Pass = field(default_factory=Pass)
    """The loop that asked last, of `requests` in all."""
    requests: int = 0
    namespaces: list[Namespace] = field(default_factory=list)
    """Those made, so that no two have one id."""
    kept: dict[tuple[int, str], Any] = field(default_factory=dict)
    """What they hold, by id and name."""
    foreseen: set[int] = field(default_factory=set)
    """Messages of which the template knew before it had printed all of the one before."""
    buffers: int = 0
    """How many macros and blocks, which print later, enclose what runs."""

    def asks(self, this: Pass, message: int) -> None:
        """Note that `this` loop asks for `message`."""
        self.requests += 1
        self.latest, this.asked = this, message
        if message in self.turns:
            this.at[message] = self.printed, self.state()

    def state(self) -> State:
        """Return what is kept. Raises Opaque for what may change without a word."""
        if not all(value is None or isinstance(value, str | int | float) for value in self.kept.values()):
            raise Opaque
        return tuple((number, name, type(value), value) for (number, name), value in self.kept.items())


class Walked:
    """The messages, or those from `first` on, which note what is asked of them."""

    def __init__(self, messages: Sequence[Mapping[str, Any]], record: Record, first: int = 0) -> None:
        self._messages, self._record, self._first = messages, record, first

    def __bool__(self) -> bool:
        """Return whether there is a message: of each prompt that is asked for, there is."""
        if self._first:
            raise Opaque
        return bool(self._messages)

    def __getitem__(self, key: Any) -> Any:
        """Return a message that every longer conversation has too, or all from one on."""
        if isinstance(key, slice) and key.stop is None and key.step in (None, 1) and (key.start or 0) >= 0:
            return Walked(self._messages, self._record, self._first + (key.start or 0))
        if type(key) is not int or key < 0:
            raise Opaque
        index, passes = self._first + key, self._record.passes
        known = passes[-1].asked if passes and passes[-1].end is None else 0
        self._record.foreseen.update(range(known + 1, index + 1))
        return self._messages[index]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield the messages, noting how far the text had come when each was asked for."""
        record, this = self._record, Pass(first=self._first)
        if record.buffers:
            raise Opaque
        record.passes.append(this)
        for index in range(self._first, len(self._messages)):
            record.asks(this, index)
            yield self._messages[index]
        record.asks(this, len(self._messages))
        this.end = record.printed, record.state()

    def _opaque(self, *_: Any) -> NoReturn:
        raise Opaque

    __len__ = __contains__ = __eq__ = __ne__ = __hash__ = __str__ = __repr__ = __format__ = __reversed__ = _opaque
    __add__ = __radd__ = __mul__ = __rmul__ = __lt__ = __le__ = __gt__ = __ge__ = _opaque


class WalkingEnvironment(PlainEnvironment):
    """The environment of chat templates, which notes what a template keeps."""

    def __init__(self, like: jinja2.Environment, budget: Budget) -> None:
        """Copy the filters, tests and globals of `like`."""
        super().__init__(like, budget)
        self.record = Record()
        self.know("namespace", _noting(self))
        self.filters.update(_notes(self))


def _noting(environment: WalkingEnvironment) -> Callable[..., Namespace]:
    """Return what makes a namespace whose contents are noted."""

    class Noted(Namespace):
        def __setitem__(self, name: str, value: Any) -> None:
            environment.record.kept[id(self), name] = value
            super().__setitem__(name, value)

    def namespace(*args: Any, **kwargs: Any) -> Namespace:
        made, record = Noted(*args, **kwargs), environment.record
        record.namespaces.append(made)
        record.kept |= {(id(made), name): value for name, value in dict(*args, **kwargs).items()}
        return made

    return namespace


def _notes(environment: WalkingEnvironment) -> dict[str, Callable[..., Any]]:
    def buffer(_: Any, by: int) -> None:
        environment.record.buffers += by

    def requests(_: Any) -> int:
        return environment.record.requests

    def ahead(before: int, value: Any) -> Any:
        """Note that the loop looked at the next message, if asking it for `value` made it do so."""
        record = environment.record
        if record.requests != before:
            record.foreseen.add(record.latest.asked)
            record.latest.end = record.latest.end and (-1, ())  # its body is not at its end
        return value

    return {"sftplug_buffer": buffer, "sftplug_requests": requests, "sftplug_ahead": ahead}


class _Watch(NodeTransformer):
    """Adds marks around what prints later, and where a loop may look ahead."""

    def _with_marks(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        enter, leave = (
            nodes.ExprStmt(nodes.Filter(nodes.Const(None), "sftplug_buffer", [nodes.Const(by)], [], None, None))
            for by in (1, -1)
        )
        node.body = [enter, *node.body, leave]
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = _with_marks

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        """Look at ``loop.last`` and the like."""
        self.generic_visit(node)
        return _watched(node) if node.attr in _AHEAD else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Look at ``loop["last"]`` and the like."""
        self.generic_visit(node)
        return _watched(node) if isinstance(node.arg, nodes.Const) and node.arg.value in _AHEAD else node


def _watched(node: nodes.Expr) -> nodes.Expr:
    before = nodes.Filter(nodes.Const(None), "sftplug_requests", [], [], None, None)
    return nodes.Filter(before, "sftplug_ahead", [node], [], None, None)  # the arguments are evaluated after it


def _can_be_followed(tree: nodes.Template) -> bool:
    """Whether nothing but a namespace keeps anything beyond the body of a loop, and every look ahead is seen."""
    plain = {id(item.node) for item in tree.find_all(nodes.Getattr)}
    plain |= {id(item.node) for item in tree.find_all(nodes.Getitem) if isinstance(item.arg, nodes.Const)}
    names = tree.find_all(nodes.Name)
    if any(name.name in _KEEPING or (name.name == "loop" and id(name) not in plain) for name in names):
        return False
    if any(loop.recursive or loop.else_ for loop in tree.find_all(nodes.For)):
        return False
    kept = [assign.node for assign in tree.find_all(nodes.Assign)]
    lazy = any(isinstance(value, nodes.Filter) and value.name in _LAZY for value in kept)
    return not lazy and not any(item.name == "random" for item in tree.find_all(nodes.Filter))


@dataclass(slots=True)
class Walk:
    """A template compiled to be followed through the messages."""

    environment: WalkingEnvironment
    template: jinja2.Template
    rendering: Rendering

    @classmethod
    def through(cls, source: str, budget: Budget, rendering: Rendering) -> Walk | None:
        """Return the walk through `source`; None for a template that cannot be followed."""
        environment = WalkingEnvironment(official_environment(), budget)
        tree = environment.parse(source)
        if not _can_be_followed(tree):
            return None
        return cls(environment, compiled(environment, _Watch().visit(tree)), rendering)

    def prompts(self, call: Call, text: str) -> Prompts | None:
        """Return where the prompts of the turns of `call`, whose `text` it is, end; None where nothing is proven."""
        turns = frozenset(assistants_in(call.messages))
        walked = self.render(call, turns)
        if walked is None:
            return None
        return Prompts(text, walked[1], agreement(text, walked[0]), lambda turn: self.render(call.until(turn), turns))

    def render(self, call: Call, turns: frozenset[int]) -> tuple[str, Record] | None:
        """Return the text with what asks for a reply, and what the template asked; None where that proves nothing."""
        variables = {"documents": None, "tools": call.tools, "add_generation_prompt": True, **call.kwargs}
        texts: list[str] = []
        try:
            with self.rendering(call):
                record = self.environment.record = Record(turns)
                context = self.template.new_context({**variables, "messages": Walked(call.messages, record)})
                for text in self.template.root_render_func(context):
                    texts.append(str(text))
                    record.printed += len(text)
        except (Opaque, Unproven, TemplateError):
            return None  # where the template refuses, the prompt itself shows it
        return "".join(texts), record


@dataclass(slots=True)
class Walks:
    """The walk through a template, made when the first long conversation comes."""

    source: str
    budget: Budget
    rendering: Rendering
    made: list[Walk | None] = field(default_factory=list)

    def prompt_ends(self, call: Call, text: str) -> Callable[[int], int | None]:
        """Return what says of a turn of `call`, whose `text` it is, where its prompt ends; None where none is sure.

        Raises TemplateError where to render the prompts that are not sure would take too long.
        """
        turns = assistants_in(call.messages)
        if len(turns) < MANY:
            return unknown
        if not self.made:
            self.made.append(Walk.through(self.source, self.budget, self.rendering))
        walk = self.made[0]
        prompts = None if walk is None else walk.prompts(call, text)
        end = unknown if prompts is None else prompts.end
        one_by_one = [turn for turn in turns if end(turn) is None]
        if sum(one_by_one) > MOST:
            raise TemplateError(
                f"what the chat template prints of a message depends on those after it, so the prompts of "
                f"{len(one_by_one):,} turns have to be rendered one by one: {sum(one_by_one):,} messages, and "
                f"{MOST:,} are rendered for one conversation. Cut it into shorter ones."
            )
        return end


@dataclass(slots=True)
class Prompts:
    """Where in the text of a conversation the prompt of each of its turns ends."""

    text: str
    """The conversation, as it is trained."""
    record: Record
    agreed: int
    """So much of `text` stands in every prompt that is long enough: in what the walk printed."""
    begin: Callable[[int], tuple[str, Record] | None]
    """Renders the prompt of a turn."""
    endings: dict[State, str | None] = field(default_factory=dict)
    """What the namespaces hold after the last message -> what the template prints then."""

    def end(self, turn: int) -> int | None:
        """Return where the prompt of `turn` ends, if it is proven that the text begins with it."""
        place = self._asked_at(turn)
        if place is None or place[0] > self.agreed:
            return None
        printed, state = place
        if state not in self.endings and len(self.endings) < ENDINGS:
            self.endings[state] = self._ending(turn, printed)
        ending = self.endings.get(state)
        return printed + len(ending) if ending is not None and self.text.startswith(ending, printed) else None

    def _asked_at(self, turn: int) -> tuple[int, State] | None:
        """Return how much was printed, and what was kept, when only `turn` could tell the whole from its prompt."""
        *before, last = self.record.passes or [Pass()]
        if turn in self.record.foreseen or turn <= max(one.first for one in (*before, last)):
            return None
        # An earlier loop that neither prints nor keeps anything from `turn` on ends alike without it.
        alike = all(one.asked < turn or (turn in one.at and one.at[turn] == one.end) for one in before)
        return last.at.get(turn) if alike else None

    def _ending(self, turn: int, printed: int) -> str | None:
        """Return what the prompt of `turn` ends in, if nothing in that depends on which turn it is."""
        rendered = self.begin(turn)
        if rendered is None:
            return None
        prompt, record = rendered
        same = len(record.passes) == len(self.record.passes) and not record.foreseen - self.record.foreseen
        return prompt[printed:] if same and prompt[:printed] == self.text[:printed] else None


def agreement(first: str, second: str) -> int:
    """Return how many characters two texts share at their start."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first.startswith(second[low:middle], low) else (low, middle - 1)
    return low
