"""The marks in a chat template's syntax tree, which tell the message that the template is working on.

There is one before and after every loop and macro, one at the head of the body, and one wherever text is kept for
later: what is printed or remembered there belongs to the message that was active then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from sftplug.data.render.bounds import compiled, parsed
from sftplug.data.render.instrument import TracedEnvironment


def _filter(value: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None)


def _do(value: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter(value, name, *args))


class Marks(NodeTransformer):
    """Adds the marks to a template's syntax tree."""

    def __init__(self) -> None:
        self._buffers = 0
        """How many buffers (macros, blocks, recursive loops) enclose the node."""
        self._several: list[str] = []
        """The targets of loops whose body works on several messages at once."""

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:
        """Save the active message around the loop, and ask at each turn whether the item is a message."""
        targets = [name.name for name in node.target.find_all(nodes.Name)] or [getattr(node.target, "name", "")]
        if isinstance(node.target, nodes.Name):
            targets = [node.target.name]
        marks: list[nodes.Node] = [_do(nodes.Name(name, "load"), "sftplug_mark") for name in targets]
        marks += [_do(nodes.Name(of, "load"), "sftplug_mark_item", index) for of, index in _indexed(node, targets)]
        # ``{% for pair in messages|batch(2) %}``: ``pair[0]`` and ``pair[1]`` are two messages in one turn of the loop.
        several = targets if any(_is_one_of_several(item, targets) for item in node.find_all(nodes.Getitem)) else []
        self._several += several
        self._buffers += node.recursive
        self.generic_visit(node)
        self._buffers -= node.recursive
        del self._several[len(self._several) - len(several) :]
        node.body = [*marks, *node.body]
        none = nodes.Const(None)
        # {% for m in messages %}…{% endfor %} becomes
        # {% do none|sftplug_push %}{% for m in messages %}{% do m|sftplug_mark %}…{% endfor %}{% do none|sftplug_pop %}
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

    def visit_Output(self, node: nodes.Output) -> nodes.Node | list[nodes.Node]:
        """Inside a buffer, text remembers the message that is active now: the buffer is printed later.

        In a loop over pairs of messages, what prints one of a pair is what the template works on from there on.
        """
        marks = [list(self._marks_of(item)) for item in node.nodes]
        self.generic_visit(node)
        if self._buffers:
            node.nodes = [_filter(_as_expression(item), "sftplug_own_here") for item in node.nodes]
        if not any(marks):
            return node
        # ``{{ pair[0].content }}{{ pair[1].content }}`` is one node: taken apart, each part has its own mark before it.
        return [
            part
            for item, before in zip(node.nodes, marks, strict=True)
            for part in (*before, nodes.Output([item], lineno=node.lineno))
        ]

    def _marks_of(self, item: nodes.Node) -> Iterator[nodes.Node]:
        for part in _printed_items(item) if self._several else ():
            if isinstance(part.node, nodes.Name) and _is_of_a_loop(part, self._several):
                yield _do(nodes.Name(part.node.name, "load"), "sftplug_mark_item", _copied(part.arg))

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


def _copied(node: Any) -> Any:
    """Return a copy of an expression, so that what changes the one leaves the other as it is."""
    if isinstance(node, list):
        return [_copied(item) for item in node]
    if not isinstance(node, nodes.Node):
        return node
    return type(node)(*(_copied(value) for _, value in node.iter_fields()), lineno=node.lineno)


def _as_expression(node: nodes.Node) -> nodes.Expr:
    return nodes.Const(node.data) if isinstance(node, nodes.TemplateData) else node  # type: ignore[return-value]


def _indexed(loop: nodes.For, targets: list[str]) -> list[tuple[str, nodes.Expr]]:
    """Return (name, index) of every ``name[index]`` in the body whose index is the loop's own variable."""
    # {% for i in range(n) %}{{ messages[i].content }}: what is worked on is messages[i]; `i` alone does not tell it.
    found: dict[str, nodes.Expr] = {}
    for statement in loop.body:
        for item in statement.find_all(nodes.Getitem):
            if isinstance(item.node, nodes.Name) and _is_loop_index(item.arg, targets):
                found.setdefault(item.node.name, item.arg)
    return list(found.items())


def _is_one_of_several(item: nodes.Getitem, targets: list[str]) -> bool:
    """Whether `item` is ``pair[0]`` or ``messages[i + 1]`` of a loop with these targets."""
    if not isinstance(item.node, nodes.Name):
        return False
    if isinstance(item.arg, nodes.Const):
        return item.node.name in targets and isinstance(item.arg.value, int)
    added = isinstance(item.arg, nodes.Add) and isinstance(item.arg.right, nodes.Const)
    return added and _is_loop_index(item.arg.left, targets)  # type: ignore[attr-defined]


def _printed_items(node: nodes.Node) -> Iterator[nodes.Getitem]:
    """Yield each ``x[y]`` that is printed, or whose attribute is; not what only decides what is printed."""
    if isinstance(node, nodes.Getitem):
        yield node
    if isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Filter) and node.node is not None:
        yield from _printed_items(node.node)
    if isinstance(node, nodes.Add):
        yield from _printed_items(node.left)
        yield from _printed_items(node.right)
    if isinstance(node, nodes.Concat):
        for part in node.nodes:
            yield from _printed_items(part)


def _is_of_a_loop(item: nodes.Getitem, targets: list[str]) -> bool:
    return _is_one_of_several(item, targets) or _is_loop_index(item.arg, targets)


def _is_loop_index(node: nodes.Node, targets: list[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in targets
    own = isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "loop"
    return own and node.attr == "index0"  # type: ignore[attr-defined]


Compiled = tuple[TracedEnvironment, jinja2.Template]


def compile_traced(source: str, environment: TracedEnvironment, marks: Marks) -> Compiled:
    """Return `source` compiled with `marks`, and the environment whose `active` and `owners` belong to it."""
    return environment, compiled(environment, marks.visit(parsed(environment, source)))
