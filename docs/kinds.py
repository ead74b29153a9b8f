"""The page of kinds: what a plugin subclasses, and the plain data that its methods get and return."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import sftplug
from sftplug.plugin.components import Component, RowProcessor, StreamProcessor
from sftplug.plugin.registry import HOOKS

INTRODUCTION = """# Kinds, and the data they work on

What a plugin subclasses: each kind of component with every method and attribute, as they stand in the code. *Must*
marks what has to be written; everything else has the default that is shown or described. What is promised and demanded
besides is in [the contracts](contracts.md).
"""

COMPONENT = """## Every component

A component is a frozen pydantic model: its annotated attributes are its options. `type` is its name.
"""

DATA = """## Plain data

Importable from `sftplug`, like everything on this page.
"""


def kinds_page() -> str:
    """Return the page, in the order in which a run uses the kinds."""
    lines = [INTRODUCTION, COMPONENT, *_members(Component)]
    for hook, kind in HOOKS.items():
        for cls in (kind, *([StreamProcessor] if kind is RowProcessor else [])):
            lines += [f"## {cls.__name__}", "", f"{inspect.getdoc(cls)}", "", f"Offered by `{hook}()`.", ""]
            lines += _members(cls)
    lines.append(DATA)
    lines += data_classes(
        "Row",
        "Dropped",
        "Made",
        "RowContext",
        "Conversation",
        "Message",
        "ToolCall",
        "TokenBatch",
        "LongRow",
        "TrainedTokens",
        "OutputLayer",
        "TrainedParameters",
        "TrainedParameter",
        "Horizon",
        "Reply",
        "FinishedModel",
        "ServedModel",
        "Device",
    )
    return "\n".join(lines).rstrip() + "\n"


def data_classes(*names: str) -> list[str]:
    """Return a section for each of these public classes, with every public attribute and method."""
    lines = []
    for name in names:
        cls = getattr(sftplug, name)
        lines += [f"### `{name}`", "", str(inspect.getdoc(cls)), "", *_members(cls)]
    return lines


def _members(cls: type[Any]) -> Iterator[str]:
    """Yield a paragraph of a definition list for each public attribute and method that `cls` itself defines."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            yield from _definition(ast.unparse(node), following.value.value if documented else "", False)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            marks = {ast.unparse(decorator) for decorator in node.decorator_list}
            yield from _definition(_signature(node, marks), ast.get_docstring(node) or "", "abstractmethod" in marks)


def _signature(node: ast.FunctionDef, marks: set[str]) -> str:
    returns = ast.unparse(node.returns) if node.returns else ""
    if "property" in marks:
        return f"{node.name}: {returns} (property)"
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    return f"{node.name}({arguments}) -> {returns}"


def _definition(term: str, text: str, must: bool) -> Iterator[str]:
    yield f"`{term}`{' (*must*)' if must else ''}"
    first, *rest = inspect.cleandoc(text).splitlines() or ["As its name says."]
    yield f": {first}"
    yield from (f"  {line}".rstrip() for line in rest)
    yield ""
