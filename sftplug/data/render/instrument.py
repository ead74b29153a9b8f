"""Compile a chat template so that its output says, piece by piece, who wrote it.

The template's source is not touched. Its syntax tree gets *marks*: before and after every loop, and at the head of
the loop's body, so that the text which the template itself writes can be given to the message it is working on. And
the few operations that would lose the runs of a `Traced` string (``~``, ``%``, `join`, `format`, `tojson`, buffers of
macros and blocks) are replaced by ones that keep them. Everything else is transformers' own environment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from sftplug.data.render.provenance import LITERAL, Active, Run, Traced, concat, find_parts, percent, runs_of


class TracedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of chat templates, keeping track of who wrote what."""

    def __init__(self, like: jinja2.Environment) -> None:
        """Copy the filters, tests and globals of `like`, transformers' own environment."""
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.active = self.new_active()
        self.owners: dict[int, int] = {}
        """id() of a message, or of anything within one -> index of the message."""
        self.concat = lambda parts: concat(parts, self.active)  # type: ignore[method-assign]
        self.filters.update({**like.filters, **_filters(self)})
        self.tests.update(like.tests)
        self.globals.update(like.globals)

    def new_active(self) -> Active:
        """Return the record of what a render is working on."""
        return Active()

    def trace(self, text: str, runs: list[Run]) -> Traced:
        """Return the `text` of a message as one that remembers where it came from."""
        return Traced(text, runs, self.active)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Keep the runs through ``"…".format(…)``, which the sandbox wraps."""
        owner = getattr(value, "__self__", None)
        if isinstance(owner, Traced):
            value = getattr(str.__str__(owner), value.__name__, None)
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def traced_format(*args: Any, **kwargs: Any) -> str:
            parts = [item for item in (*args, *kwargs.values()) if isinstance(item, Traced)]
            return find_parts(wrapped(*args, **kwargs), parts, self.active)

        return traced_format

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep the runs through methods of plain strings: ``", ".join(parts)``, ``"<q>".replace("q", content)``."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if type(owner) is str and (name == "join" or any(isinstance(item, Traced) for item in args)):
            function = getattr(Traced(owner, runs_of(owner, self.active), self.active), name)
        return super().call(context, function, *args, **kwargs)

    def owner_of(self, value: Any) -> int | None:
        """Return the index of the message that `value` is, or is part of, or was made from."""
        known = self.owners.get(id(value))
        if known is not None:
            return known
        if isinstance(value, Traced):
            return next((run.message for run in runs_of(value, self.active) if run.field), None)
        if isinstance(value, Mapping):
            return next((owner for item in value.values() if (owner := self.owner_of(item)) is not None), None)
        if isinstance(value, list | tuple):
            return next((owner for item in value if (owner := self.owner_of(item)) is not None), None)
        return None


class _Generation(Extension):
    """``{% generation %}`` passes its body through; where it stands says nothing that the check relies on."""

    tags = {"generation"}  # noqa: RUF012 - the name that Jinja asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


# --- filters ----------------------------------------------------------------------------------------------------------


def _filters(environment: TracedEnvironment) -> dict[str, Callable[..., Any]]:
    return {name: _impure(function) for name, function in {**_marks(environment), **_operations(environment)}.items()}


def _marks(environment: TracedEnvironment) -> dict[str, Callable[..., Any]]:
    """Return what the marks in the tree call: which message is active from here on."""
    active = environment.active

    def mark(value: Any) -> Any:
        owner = environment.owner_of(value)
        active.message = active.message if owner is None else owner
        return value

    def mark_item(container: Any, index: Any) -> None:
        if isinstance(container, list | tuple) and isinstance(index, int) and -len(container) <= index < len(container):
            mark(container[index])

    def mark_argument(value: Any) -> None:
        if active.message is None:
            mark(value)

    def push(_: Any) -> None:
        active.stack.append(active.message)

    def pop(_: Any) -> None:
        active.message = active.stack.pop()

    return {
        "sftplug_mark": mark,
        "sftplug_mark_item": mark_item,
        "sftplug_mark_argument": mark_argument,
        "sftplug_push": push,
        "sftplug_pop": pop,
    }


def _operations(environment: TracedEnvironment) -> dict[str, Callable[..., Any]]:
    """Return what stands in for operations that would lose the runs of a traced string."""
    active = environment.active

    def own(value: Any) -> Any:
        return Traced(value, runs_of(value, active), active) if type(value) is str else value

    def own_here(value: Any) -> Any:
        if isinstance(value, Traced) and active.message is not None:
            runs = [run if run.within is not None else run._replace(within=active.message) for run in value._runs]
            return type(value)(value, runs, active)
        return own(value)

    def join(value: Iterable[Any], d: str = "", attribute: Any = None) -> str:
        get = _attribute(environment, attribute)
        return Traced(d, runs_of(d, active), active).join([_text(get(item)) for item in value])

    return {
        "sftplug_own": own,
        "sftplug_own_here": own_here,
        "sftplug_concat": lambda first, *rest: concat([_text(part) for part in (first, *rest)], active),
        "sftplug_percent": lambda left, right: _percent(left, right, active),
        "join": join,
        "format": lambda value, *args, **kwargs: percent(_text(value), kwargs or args, active),
        "tojson": lambda value, **options: _tojson(value, options, environment),
        # Markup of a traced string would lose its runs; nothing is escaped in a chat template.
        "safe": _text,
    }


def _impure(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep Jinja's optimizer from calling `function` once at compile time."""

    @jinja2.pass_context
    def filter_(_context: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return filter_


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _attribute(environment: jinja2.Environment, attribute: Any) -> Callable[[Any], Any]:
    return (lambda item: item) if attribute is None else (lambda item: environment.getitem(item, attribute))


def _percent(left: Any, right: Any, active: Active) -> Any:
    return percent(left, right, active) if isinstance(left, str) else left % right


def _tojson(value: Any, options: Mapping[str, Any], environment: TracedEnvironment) -> Traced:
    """Return the JSON text of `value`, as transformers' filter writes it, with the runs of the strings in it."""
    settings = {"ensure_ascii": False, "indent": None, "separators": None, "sort_keys": False, **options}
    text = json.dumps(value, **settings)
    owners = _owners_in(value, environment)
    if len(owners) <= 1 and (owner := next(iter(owners), None)) is not None:
        # All of it is of one message: braces, keys and numbers too.
        return Traced(text, [Run(len(text), owner, _field_of(value), -1)], environment.active)
    strings = [_encoded(item, settings["ensure_ascii"]) for item in _strings_in(value, settings["sort_keys"])]
    return find_in_order(text, strings, environment.active)


def _encoded(value: Traced, ascii_only: bool) -> Traced:
    quoted = json.dumps(str.__str__(value), ensure_ascii=ascii_only)
    run = value._runs[0]
    return Traced(quoted, [run._replace(length=len(quoted), offset=-1)], value._active)


def find_in_order(text: str, parts: Iterable[Traced], active: Active) -> Traced:
    """Return `text` with the runs of `parts`, each taken where it next stands: JSON keeps the order of its values."""
    runs, position = [], 0
    for part in parts:
        at = text.find(part, position)
        if at < 0:
            return Traced(text, [Run(len(text), active.message, LITERAL, -1)], active)
        runs += [Run(at - position, active.message, LITERAL, -1), *part._runs]
        position = at + len(part)
    return Traced(text, [*runs, Run(len(text) - position, active.message, LITERAL, -1)], active)


def _strings_in(value: Any, sort_keys: bool) -> Iterable[Traced]:
    if isinstance(value, Traced):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value) if sort_keys else value:
            yield from _strings_in(value[key], sort_keys)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings_in(item, sort_keys)


def _owners_in(value: Any, environment: TracedEnvironment) -> set[int | None]:
    """Return the messages that the parts of `value` belong to."""
    whole = environment.owners.get(id(value))
    if whole is not None:
        return {whole}
    return {run.message for text in _strings_in(value, False) for run in text._runs if run.field}


def _field_of(value: Any) -> str:
    first = next(iter(_strings_in(value, False)), None)
    return first._runs[0].field if first is not None and first._runs[0].field else "tool_calls"


# --- marks ------------------------------------------------------------------------------------------------------------


def _filter(value: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None)


def _do(value: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter(value, name, *args))


class Marks(NodeTransformer):
    """Adds the marks to a template's syntax tree."""

    def __init__(self) -> None:
        self._buffers = 0
        """How many buffers (macros, blocks, recursive loops) enclose the node."""

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:
        """Save the active message around the loop, and ask at each turn whether the item is a message."""
        targets = [name.name for name in node.target.find_all(nodes.Name)] or [getattr(node.target, "name", "")]
        if isinstance(node.target, nodes.Name):
            targets = [node.target.name]
        marks: list[nodes.Node] = [_do(nodes.Name(name, "load"), "sftplug_mark") for name in targets]
        marks += [_do(nodes.Name(of, "load"), "sftplug_mark_item", index) for of, index in _indexed(node, targets)]
        self._buffers += node.recursive
        self.generic_visit(node)
        self._buffers -= node.recursive
        node.body = [*marks, *node.body]
        none = nodes.Const(None)
        return [_do(none, "sftplug_push"), node, _do(none, "sftplug_pop")]

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Give what a macro prints to the message it is called with, unless one is active already."""
        self._visit_buffer(node)
        marks = [_do(nodes.Name(argument.name, "load"), "sftplug_mark_argument") for argument in node.args]
        none = nodes.Const(None)
        node.body = [_do(none, "sftplug_push"), *marks, *node.body, _do(none, "sftplug_pop")]
        return node

    def _visit_buffer(self, node: nodes.Node) -> nodes.Node:
        self._buffers += 1
        self.generic_visit(node)
        self._buffers -= 1
        return node

    visit_CallBlock = _visit_buffer
    visit_FilterBlock = _visit_buffer
    visit_AssignBlock = _visit_buffer

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """Inside a buffer, text remembers the message that is active now: the buffer is printed later."""
        self.generic_visit(node)
        if self._buffers:
            node.nodes = [_filter(_as_expression(item), "sftplug_own_here") for item in node.nodes]
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        """Text in a variable remembers the message that is active now."""
        self.generic_visit(node)
        node.node = _filter(_as_expression(node.node), "sftplug_own")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """``a ~ b`` keeps the runs of both."""
        self.generic_visit(node)
        return _filter(node.nodes[0], "sftplug_concat", *node.nodes[1:])

    def visit_Mod(self, node: nodes.Mod) -> nodes.Node:
        """``"…" % value`` keeps the runs of the value."""
        self.generic_visit(node)
        return _filter(node.left, "sftplug_percent", node.right)


def _as_expression(node: nodes.Node) -> nodes.Expr:
    return nodes.Const(node.data) if isinstance(node, nodes.TemplateData) else node  # type: ignore[return-value]


def _indexed(loop: nodes.For, targets: list[str]) -> list[tuple[str, nodes.Expr]]:
    """Return (name, index) of every ``name[index]`` in the body whose index is the loop's own variable."""
    found: dict[str, nodes.Expr] = {}
    for statement in loop.body:
        for item in statement.find_all(nodes.Getitem):
            if isinstance(item.node, nodes.Name) and _is_loop_index(item.arg, targets):
                found.setdefault(item.node.name, item.arg)
    return list(found.items())


def _is_loop_index(node: nodes.Node, targets: list[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in targets
    own = isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "loop"
    return own and node.attr == "index0"  # type: ignore[attr-defined]


Compiled = tuple[TracedEnvironment, jinja2.Template]


def compile_traced(source: str, environment: TracedEnvironment, marks: Marks) -> Compiled:
    """Return `source` compiled with `marks`, and the environment whose `active` and `owners` belong to it."""
    tree = marks.visit(environment.parse(source))
    for node in tree.find_all(nodes.Node):
        node.set_environment(environment)
        if node.lineno is None:
            node.set_lineno(tree.lineno)
    return environment, jinja2.Template.from_code(
        environment, environment.compile(tree), environment.make_globals(None), None
    )
