"""What is changed in the syntax tree of a template whose loops are followed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

_LAZY = frozenset(
    {"map", "select", "reject", "selectattr", "rejectattr", "batch", "slice", "items", "reverse", "unique"}
)
"""Filters whose result changes when it is read, and so keeps something, as a namespace does."""
_KEEPING = frozenset({"cycler", "joiner", "lipsum"})
"""Globals that do, or that say something else each time."""
_LATER = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock)
"""Nodes whose body prints into a text that is used later."""


def can_be_followed(tree: nodes.Template) -> bool:
    """Whether nothing but a namespace keeps anything beyond the body of a loop."""
    if any(name.name in _KEEPING for name in tree.find_all(nodes.Name)):
        return False
    # ``else`` runs where nothing was gone through, a recursive loop goes on within a turn, and ``loop`` in a condition
    # counts the items that pass it: nothing is known of that for turns that do not run.
    if any(loop.recursive or loop.else_ or (loop.test and _names(loop, "loop")) for loop in tree.find_all(nodes.For)):
        return False
    kept = [assign.node for assign in tree.find_all(nodes.Assign)]
    if any(isinstance(value, nodes.Filter) and value.name in _LAZY for value in kept):
        return False
    return not any(item.name == "random" for item in tree.find_all(nodes.Filter)) and not tree.find(nodes.Block)


def _names(node: nodes.Node, name: str) -> bool:
    return any(found.name == name for found in node.find_all(nodes.Name))


def watch(tree: nodes.Template) -> nodes.Template:
    """Return the tree with every loop given over to the walk, and with marks around what prints later."""
    inside = {name.name for node in tree.find_all((nodes.For, nodes.Macro)) for name in node.find_all(nodes.Name)}
    watched: nodes.Template = _Watch(sorted(inside & set(_set_outside(tree)))).visit(tree)
    return watched


def _set_outside(node: nodes.Node) -> Iterator[str]:
    """Yield the names of the variables that are set outside of all loops and macros."""
    if isinstance(node, nodes.For | nodes.Macro):
        return
    if isinstance(node, nodes.Name) and node.ctx == "store":
        yield node.name
    for child in node.iter_child_nodes():
        yield from _set_outside(child)


class _Watch(NodeTransformer):
    def __init__(self, variables: list[str]) -> None:
        self._variables = variables
        """What the loops outside of all others may read besides the messages and namespaces."""
        self._number = 0
        self._loops: list[str] = []
        """The names that `loop` goes by in the loops that enclose the node."""
        self._later = 0

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Let the walk say what the loop goes through, and what `loop` tells."""
        self._number += 1
        outside = not self._loops and not self._later
        name, names = f"sftplug_loop_{self._number}", self._variables if outside else []
        variables = nodes.List([nodes.Name(variable, "load") for variable in names])
        number = nodes.Const(self._number if outside else 0)
        # What a loop goes through is told by the loop around it, so its ``loop`` is not yet this one.
        iterated = self.visit(node.iter)
        self._loops.append(name)
        self.generic_visit(node)
        self._loops.pop()
        # ``{% for m in messages %}{{ loop.last }}`` becomes ``{% for m, sftplug_loop_1 in messages|sftplug_loop(1, [])
        # %}{{ sftplug_loop_1.last }}``.
        node.iter = nodes.Filter(iterated, "sftplug_loop", [number, variables], [], None, None)
        node.target = nodes.Tuple([node.target, nodes.Name(name, "store")], "store")
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        """Call the innermost loop by its name."""
        if node.name == "loop" and self._loops:
            node.name = self._loops[-1]
        return node

    def _with_marks(self, node: Any) -> nodes.Node:
        self._later += 1
        self.generic_visit(node)
        self._later -= 1
        enter, leave = (
            nodes.ExprStmt(nodes.Filter(nodes.Const(None), "sftplug_buffer", [nodes.Const(by)], [], None, None))
            for by in (1, -1)
        )
        node.body = [enter, *node.body, leave]
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = _with_marks
