"""Bounds on what a chat template may do: a template is a program of its author's, and need not end by itself.

Its syntax tree gets a tick in the body of every loop and macro, and a check wherever a value is kept. Operators,
filters and methods that make much of little are checked before they run. No signal and no thread is needed, so a
template is stopped wherever it is rendered.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import _PassArg
from jinja2.visitor import NodeTransformer

from sftplug.errors import TemplateError

TURNS = 1_000_000
"""How often the loops and macros of one render may run, all together."""
SIZE = 10_000_000
"""How many characters one render may print, and how long a text or list may get."""
SECONDS = 60.0
"""How much processor time the loops of one render may take."""
_GROWING = frozenset(
    {"batch", "center", "expandtabs", "format", "format_map", "indent", "join", "ljust", "replace", "rjust", "slice"}
    | {"sftplug_percent", "tojson", "wordwrap", "zfill"}
)
"""Filters and methods whose result can be far larger than what they are given."""
_WIDTH = re.compile(r"%[-+ #0]*\d*\.?\d{7}|\{[^{}]*:[^{}]*\d{7}")
"""A width of a million and more in a format: ``%1000000d``, ``{:>1000000}``."""


class TooMuch(Exception):
    """The template does more than a chat template may."""


@contextmanager
def stopping(name: str) -> Iterator[None]:
    """Raise TemplateError naming the template when it does too much; it is no refusal that a caller may pass over."""
    try:
        yield
    except TooMuch as error:
        raise TemplateError(f"chat template '{name}' is stopped: {error}") from error


class Budget:
    """What one render has used so far."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A render begins."""
        self._turns = self._printed = 0
        self._started = time.thread_time()

    def tick(self, _: object) -> None:
        """Count one turn of a loop, or one call of a macro."""
        self._turns += 1
        if self._turns > TURNS:
            raise TooMuch(f"its loops and macros run more than {TURNS:,} times")
        if self._turns % 256 == 0 and time.thread_time() - self._started > SECONDS:
            raise TooMuch(f"it takes more than {SECONDS:g} seconds")

    def printed(self, value: Any) -> Any:
        """Count what is printed."""
        self._printed += str.__len__(value) if isinstance(value, str) else 0
        if self._printed > SIZE:
            raise TooMuch(f"it prints more than {SIZE:,} characters")
        return value


def sized(value: Any) -> Any:
    """Return `value`. Raises TooMuch when it is a text or list that is too long."""
    if _length(value) > SIZE:
        raise TooMuch(f"it makes a text or list of more than {SIZE:,} items")
    return value


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with bounds."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.budget = Budget()
        self.finalize = self.budget.printed
        self.filters.update({"sftplug_tick": impure(self.budget.tick), "sftplug_sized": impure(sized)})

    def bound_filters(self) -> None:
        """Check the arguments of filters that can make much of little; called when all filters are there."""
        self.filters.update({name: _checked(name, self.filters[name]) for name in _GROWING & self.filters.keys()})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Return what the operator makes. Raises TooMuch before it makes too much."""
        return binop(operator, left, right, self.binop_table[operator])

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments of methods that can make much of little."""
        name, owner = getattr(function, "__name__", ""), getattr(function, "__self__", None)
        if name in _GROWING and isinstance(owner, str):
            _refuse_growth(name, (owner, *args), kwargs)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Check what a format that the sandbox wraps is asked for."""
        wrapped, owner = super().wrap_str_format(value), getattr(value, "__self__", "")
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _refuse_growth("format", (owner, *args), kwargs)
            return wrapped(*args, **kwargs)

        return checked


def binop(operator: str, left: Any, right: Any, apply: Callable[[Any, Any], Any]) -> Any:
    """Apply an operator. Raises TooMuch when its result would be too large."""
    if operator == "%" and isinstance(left, str):
        _refuse_growth("format", (left, *(right if isinstance(right, tuple) else (right,))), {})
    if operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(times, int) and _length(items) * times > SIZE:
                raise TooMuch(f"it repeats a text or list {times:,} times")
    if operator == "**" or (operator == "*" and isinstance(left, int) and isinstance(right, int)):
        bits = _bits(left) * right if operator == "**" and isinstance(right, int) else _bits(left) + _bits(right)
        if bits > 4096:
            raise TooMuch("it computes a number of more than 4096 bits")
    return sized(apply(left, right))


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _length(value: Any) -> int:
    if isinstance(value, str):
        return str.__len__(value)  # a traced text must not notice
    return len(value) if isinstance(value, list | tuple) and isinstance(value, Sized) else 0


def _refuse_growth(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = (*args, *kwargs.values())
    if any(isinstance(item, int) and abs(item) > SIZE // 10 for item in given):
        raise TooMuch(f"`{name}` is asked for a width of more than {SIZE // 10:,}")
    texts = [str.__str__(item) for item in given if isinstance(item, str)]
    if name in ("format", "format_map", "sftplug_percent") and texts and _WIDTH.search(texts[0]):
        raise TooMuch("it formats with a width of a million or more")
    if name == "replace" and len(texts) == 3:
        count = texts[0].count(texts[1]) if texts[1] else len(texts[0]) + 1
        if count * len(texts[2]) > SIZE:
            raise TooMuch(f"`replace` makes a text of more than {SIZE:,} characters")
    if name == "join":
        counts = sum(_length(item) for item in given if isinstance(item, list | tuple))
        if counts * max(map(len, texts), default=0) > SIZE:
            raise TooMuch(f"`join` makes a text of more than {SIZE:,} characters")


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    passed = _PassArg.from_obj(function)

    def checked(*args: Any, **kwargs: Any) -> Any:
        _refuse_growth(name, args if passed is None else args[1:], kwargs)
        return function(*args, **kwargs)

    if passed is not None:
        checked.jinja_pass_arg = passed  # type: ignore[attr-defined]
    return checked


def impure(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep Jinja's optimizer from calling `function` once at compile time."""

    @jinja2.pass_context
    def filter_(_context: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return filter_


class Bounds(NodeTransformer):
    """Adds ticks and checks to a template's syntax tree."""

    def _with_tick(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        tick = nodes.Filter(nodes.Const(None), "sftplug_tick", [], [], None, None)
        node.body = [nodes.ExprStmt(tick), *node.body]
        return node  # type: ignore[no-any-return]

    visit_For = visit_Macro = visit_CallBlock = _with_tick

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        """What is kept must not grow without bounds."""
        self.generic_visit(node)
        node.node = nodes.Filter(node.node, "sftplug_sized", [], [], None, None)
        return node


def compiled(environment: BoundedEnvironment, tree: nodes.Template) -> jinja2.Template:
    """Return a template compiled from its tree, with bounds."""
    tree = Bounds().visit(tree)
    for node in tree.find_all(nodes.Node):
        node.set_environment(environment)
        if node.lineno is None:
            node.set_lineno(tree.lineno)
    return jinja2.Template.from_code(environment, environment.compile(tree), environment.make_globals(None), None)


def refuse_constants(tree: nodes.Template, environment: BoundedEnvironment) -> None:
    """Raise TooMuch for what Jinja itself would compute when it compiles: ``10 ** 10 ** 10``, in a dead branch too."""
    for node in tree.find_all((nodes.Mul, nodes.Pow, nodes.Add, nodes.Mod, nodes.Filter)):
        if isinstance(node, nodes.Filter):
            _try_filter(node, environment)
        else:
            _folded(node, environment)


def _try_filter(node: nodes.Filter, environment: BoundedEnvironment) -> None:
    try:
        node.as_const(nodes.EvalContext(environment))
    except nodes.Impossible as error:
        if isinstance(error.__cause__ or error.__context__, TooMuch):
            raise (error.__cause__ or error.__context__) from None  # type: ignore[misc]


def _folded(node: nodes.Node, environment: BoundedEnvironment) -> Any:
    """Return the value of a constant expression; None for any other."""
    if isinstance(node, nodes.Const):
        return node.value
    if not isinstance(node, nodes.Mul | nodes.Pow | nodes.Add | nodes.Mod):
        return None
    left, right = _folded(node.left, environment), _folded(node.right, environment)
    if left is None or right is None:
        return None
    try:
        return binop(node.operator, left, right, environment.binop_table[node.operator])
    except (TypeError, ValueError, ArithmeticError):
        return None
