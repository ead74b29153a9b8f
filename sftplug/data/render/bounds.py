"""Bounds on what a chat template may do: a template is a program of its author's, and need not end by itself.

Its syntax tree gets a tick in the body of every loop, macro and block, and a check wherever a value is kept, cut or
compared. Operators, filters, tests and methods say what they cost before they run (see `costs`). Nothing is computed
while the template is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import _PassArg
from jinja2.visitor import NodeTransformer

from sftplug.data.render.budget import Budget, TooMuch
from sftplug.data.render.costs import KNOWN, apply_operator, charge_call, charge_format, charged_filter, is_free

LONGEST = 200_000
"""How many characters a template may have; the longest of real models have 20,000."""
NODES = 10_000
"""How many nodes its syntax tree may have; the largest of real models have 1,500."""
_OF_JINJA = ("_loop_vars", "_block_vars")
"""Arguments that Jinja adds to calls for its own use."""
_METHODS_OF_DICT = frozenset(dir(dict))
_MOST_KNOWN = 1000
"""Of so many attributes it is kept whether they are safe; a template can name more."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with bounds."""

    # Division is not among them: it makes nothing that is larger than what it is given.
    intercepted_binops = frozenset({"*", "**", "+", "-", "%"})

    def __init__(self, budget: Budget, **options: Any) -> None:
        # Jinja's optimizer would compute ``{% set x = "x"|center(1000000000) %}`` as it compiles, where no budget
        # counts.
        super().__init__(optimized=False, **options)
        self.budget = budget
        # With the context passed, Jinja does not try it on constants as it compiles.
        self.finalize = jinja2.pass_context(lambda _context, value: self.printed(value))
        self._known: tuple[Any, ...] = ()
        self._safe: dict[tuple[type, str], bool] = {}

    def printed(self, value: Any) -> Any:
        """Return what is printed of `value`."""
        return self.budget.printed(value)

    def bound(self) -> None:
        """Let filters, tests and functions say what they cost; called when all of them are there."""
        self._known = tuple(self.globals[name] for name in KNOWN if name in self.globals)
        budget = self.budget
        tests: dict[str, Any] = dict(self.tests)
        for name, function in self.filters.items():
            if not is_free(name):
                self.filters[name] = _charged(budget, function, charged_filter(budget, name))
        for name, test in tests.items():
            if not is_free(name, test=True):
                self.tests[name] = _charged(budget, test, charged_filter(budget, "string"))
        names = ("tick", "sized", "compared", "searched")
        self.filters.update({f"sftplug_{name}": getattr(budget, name) for name in names})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what the sandbox does: of a plain dict, which has no attributes beside its methods, the item."""
        if type(obj) is dict and attribute not in _METHODS_OF_DICT:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return what the sandbox says, which goes by the type of `obj` and the name; it is asked very often."""
        key = type(obj), attr
        safe = self._safe.get(key)
        if safe is None:
            safe = super().is_safe_attribute(obj, attr, value)
            if len(self._safe) < _MOST_KNOWN:
                self._safe[key] = safe
        return safe

    def know(self, name: str, function: Callable[..., Any]) -> None:
        """Give templates a function in the place of one of which it is known what it costs."""
        self.globals[name] = function
        self._known = (*self._known, function)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return what the operator makes. Raises TooMuch before it makes too much."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.budget.sized(left + right)
        return apply_operator(self.budget, operator, left, right, self.binop_table[operator])

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what says what it costs."""
        if not hasattr(function, "counts_itself"):
            args = charge_call(self.budget, function, args, without_jinja_s(kwargs), self._known)
        return self.budget.sized(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Count what a format that the sandbox wraps is asked for."""
        if getattr(value, "__name__", "") not in ("format", "format_map"):
            return None
        wrapped, owner = super().wrap_str_format(value), getattr(value, "__self__", "")
        if wrapped is None:
            return None

        def counted(*args: Any, **kwargs: Any) -> str:
            charge_format(self.budget, owner, args, kwargs)
            return wrapped(*args, **kwargs)

        counted.counts_itself = True  # type: ignore[attr-defined]
        return counted


def without_jinja_s(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments without those that Jinja adds to calls."""
    return {name: value for name, value in kwargs.items() if name not in _OF_JINJA}


def _charged(budget: Budget, function: Callable[..., Any], count: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or test that counts its cost first; what Jinja passes to it besides the values stays."""
    passed = _PassArg.from_obj(function)

    def charged(*args: Any, **kwargs: Any) -> Any:
        if passed is None:
            return budget.sized(function(*count(args, kwargs), **kwargs))
        return budget.sized(function(args[0], *count(args[1:], kwargs), **kwargs))

    if passed is not None:
        charged.jinja_pass_arg = passed  # type: ignore[attr-defined]
    return charged


# --- the syntax tree --------------------------------------------------------------------------------------------------


def parsed(environment: jinja2.Environment, source: str) -> nodes.Template:
    """Return the syntax tree of a template. Raises TooMuch for one that is too large to compile."""
    if len(source) > LONGEST:
        raise TooMuch(f"it is longer than {LONGEST:,} characters")
    tree = environment.parse(source)
    if sum(1 for _ in tree.find_all(nodes.Node)) > NODES:
        raise TooMuch(f"its syntax tree has more than {NODES:,} nodes")
    return tree


def compiled(environment: BoundedEnvironment, tree: nodes.Template) -> jinja2.Template:
    """Return a template compiled from its tree, with bounds."""
    tree = Bounds(escaping=tree.find(nodes.ScopedEvalContextModifier) is not None).visit(tree)
    # The compiler asks every node for its environment and line; those that were put into the tree have neither.
    for node in tree.find_all(nodes.Node):
        node.set_environment(environment)
        if node.lineno is None:
            node.set_lineno(tree.lineno)
    return jinja2.Template.from_code(environment, environment.compile(tree), environment.make_globals(None), None)


class Bounds(NodeTransformer):
    """Adds ticks and checks to a template's syntax tree."""

    def __init__(self, *, escaping: bool) -> None:
        self._escaping = escaping
        """Whether the template turns escaping on somewhere: then a printed constant is not the same as text."""

    def _with_tick(self, node: Any) -> nodes.Node:
        # Weighed before ticks are put into it: only what the author wrote counts.
        tick = _filter(nodes.Const(_weight(node)), "sftplug_tick")
        self.generic_visit(node)
        node.body = [nodes.ExprStmt(tick), *node.body]
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _with_tick

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Tick at each turn, and at each item that is only tested."""
        if node.test is not None:
            node.test = nodes.And(_filter(nodes.Const(_weight(node.test)), "sftplug_tick"), node.test)
        return self._with_tick(node)

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        """What is kept must not grow without bounds."""
        self.generic_visit(node)
        node.node = _filter(node.node, "sftplug_sized")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """A part is a copy, and a key is hashed."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _filter(node, "sftplug_sized")
        # ``messages[0]`` and ``m["role"]`` hash next to nothing.
        if not isinstance(node.arg, nodes.Const | nodes.Sub | nodes.Neg):
            node.arg = _filter(node.arg, "sftplug_compared")
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        """A key is hashed."""
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter(node.key, "sftplug_compared")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Each part of ``a ~ b`` is written out."""
        self.generic_visit(node)
        node.nodes = [part if _is_scalar(part) else _filter(part, "sftplug_compared") for part in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """What is compared is gone through, unless it is compared with a constant."""
        self.generic_visit(node)
        operators = {operand.op for operand in node.ops}
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        # ``m.role == "user"`` goes through no more than four characters, however long the role is.
        if len(sides) == 2 and operators <= {"eq", "ne"} and any(map(_is_scalar, sides)):
            return node
        if len(sides) == 2 and operators <= {"in", "notin"} and _is_plain_list(sides[1]):
            return node
        holders: list[Any] = [node, *node.ops]
        for holder in holders:
            if not _is_scalar(holder.expr):
                sought = getattr(holder, "op", "") in ("in", "notin")
                holder.expr = _filter(holder.expr, "sftplug_searched" if sought else "sftplug_compared")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """A constant text that is printed is text of the template, and needs no counting."""
        self.generic_visit(node)
        if not self._escaping:
            node.nodes = [_as_data(part) for part in node.nodes]
        return node


def _filter(value: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None)


def _is_scalar(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, str | int | float | None)


def _is_plain_list(node: nodes.Node) -> bool:
    return isinstance(node, nodes.List | nodes.Tuple) and all(map(_is_scalar, node.items))


def _as_data(node: nodes.Expr) -> nodes.Expr:
    return nodes.TemplateData(node.value) if isinstance(node, nodes.Const) and type(node.value) is str else node


def _weight(node: nodes.Node) -> int:
    """Return the work of going through a node once: for each part of it, and for the text that it writes."""
    weight = 10
    for part in node.find_all(nodes.Node):
        weight += 10
        text = part.data if isinstance(part, nodes.TemplateData) else getattr(part, "value", "")
        weight += len(text) if isinstance(text, str) else 0
    return weight
