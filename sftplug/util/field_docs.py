"""What the docstrings under the fields of a class say, read from its source when somebody asks.

pydantic's own `use_attribute_docstrings` reads them as each class is made: a quarter of the time to make one, and most
classes are only listed.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import textwrap
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple


class Place(NamedTuple):
    """Where the statement that makes a class begins."""

    file: str
    """Of a notebook's cell too, whose lines `linecache` knows."""
    line: int


def place_of(module: str) -> Place | None:
    """Return where the class that is being made now is written; None where nobody wrote it down."""
    frame = sys._getframe(1)
    # The classes between are those of pydantic and of `abc`; the first frame of the module runs the `class` statement.
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


@cache
def field_docs(model: type) -> Mapping[str, str]:
    """Return the name of each field of `model` -> its docstring, for those that have one; inherited ones too."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        own = _written(base)
        for name in inspect.get_annotations(base):
            docs.pop(name, None)  # what the base says of a field is not said of one that is written anew
            docs.update({name: own[name]} if name in own else {})
    return docs


def _written(model: type) -> dict[str, str]:
    """Return the docstrings under the fields that stand in the class itself."""
    place = model.__dict__.get("__sftplug_place__")
    lines = linecache.getlines(place.file)[place.line - 1 :] if place is not None else []
    try:
        (statement, *_) = ast.parse(textwrap.dedent("".join(inspect.getblock(lines)))).body
    except (SyntaxError, ValueError, IndexError):  # no source, or the line of a call that makes a class
        return {}
    if not isinstance(statement, ast.ClassDef) or statement.name != model.__name__:
        return {}
    # `rank: int = 8`, and on the next line `"""Columns of each matrix."""`
    docs = {}
    for field, words in zip(statement.body, statement.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(words, ast.Expr):
            docs[field.target.id] = words.value.value if isinstance(words.value, ast.Constant) else None
    return {name: inspect.cleandoc(text) for name, text in docs.items() if isinstance(text, str)}
