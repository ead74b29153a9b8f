"""From an annotation in another library's source to a type that pydantic checks, and to words for a user."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Strict, StringConstraints

_PLAIN: Mapping[str, Any] = {
    "bool": Annotated[bool, Strict()],
    "int": Annotated[int, Strict()],
    "float": Annotated[float, Strict()],
    "str": Annotated[str, Strict()],
    "dict": dict[str, Any],
    "list": list[Any],
    "set": list[Any],
    "tuple": list[Any],
    "None": None,
}
_LISTS: Mapping[str, Any] = {"list": list, "List": list, "set": list, "Set": list, "Sequence": list, "Iterable": list}
_MAPPINGS: Mapping[str, Any] = {"dict": dict, "Dict": dict, "Mapping": dict}


class Kinds:
    """Reads annotations of source files whose enumerations and option classes are known."""

    def __init__(
        self, enums: Callable[[], Mapping[str, tuple[str, ...]]], model: Callable[[str], type[BaseModel] | None]
    ) -> None:
        """`enums` returns the values of each enumeration, `model` the model of the options of a class, if it is one."""
        self._enums = enums
        self._model = model

    def type_of(self, annotation: ast.expr | None) -> Any:
        """Return what `annotation` says as a type for pydantic.

        Numbers and strings are strict; an enumeration is its values; a class of options is a model of them; a class
        that is not known takes anything.
        """
        if annotation is None:
            return Any
        if isinstance(annotation, ast.Constant):
            return self.type_of(_parsed(annotation.value)) if isinstance(annotation.value, str) else None
        members = _members(annotation)
        if len(members) > 1:
            return self._union(members)
        if isinstance(annotation, ast.Subscript):
            return self._generic(name_of(annotation.value), _items(annotation.slice))
        return self._named(name_of(annotation))

    def readable(self, annotation: ast.expr | None) -> tuple[str, tuple[str, ...]]:
        """Return how to say the type to a user, and the values that it is limited to."""
        members = _members(annotation)
        values = [value for member in members for value in self._enums().get(name_of(member), ())]
        if values:
            return f"one of {', '.join(values)}", tuple(values)
        texts = ["null" if _is_none(member) else _short(member) for member in members]
        choices = [item for member in members for item in _choices(member)]
        return " or ".join(texts), tuple(choices)

    def _union(self, members: list[ast.expr]) -> Any:
        """Beside an enumeration, ``str`` would let any text through; beside a class of options, ``dict`` any option."""
        kinds = {ast.unparse(member): self.type_of(member) for member in members}
        if any(name_of(member) in self._enums() for member in members):
            kinds.pop("str", None)
        if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds.values()):
            kinds.pop("dict", None)
        return Any if Any in kinds.values() else Union[tuple(kinds.values())]  # noqa: UP007 - built at run time

    def _generic(self, name: str, items: list[ast.expr]) -> Any:
        if name == "Literal":
            return _literal([item.value for item in items if isinstance(item, ast.Constant)])
        if name in ("tuple", "Tuple"):
            # YAML knows lists only; what is inside stays strict.
            kinds = tuple(... if _is_ellipsis(item) else self.type_of(item) for item in items)
            return Annotated[tuple.__class_getitem__(kinds), Strict(False)]
        if name in _LISTS:
            return list[self.type_of(items[0])]  # type: ignore[misc]
        return dict[self.type_of(items[0]), self.type_of(items[1])] if name in _MAPPINGS else Any  # type: ignore[misc]

    def _named(self, name: str) -> Any:
        if name in _PLAIN:
            return _PLAIN[name]
        if name in self._enums():
            return Literal[self._enums()[name]]
        return self._model(name) or Any


def name_of(node: ast.expr) -> str:
    """Return ``Optional`` for ``Optional`` and for ``typing.Optional``; an empty string for what is not a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def may_be_null(kind: Any) -> bool:
    """Whether a type takes None."""
    return kind in (Any, None) or type(None) in get_args(kind)


def is_union(kind: Any) -> bool:
    """Whether a type has several members besides None, so that pydantic would report each of them."""
    return get_origin(kind) is Union and len([item for item in kind.__args__ if item is not type(None)]) > 1


def _members(annotation: ast.expr | None) -> list[ast.expr]:
    """Return the members of ``A | B``, ``Union[A, B]`` and ``Optional[A]``, flat; else the annotation alone."""
    if isinstance(annotation, ast.BinOp):
        return [*_members(annotation.left), *_members(annotation.right)]
    if isinstance(annotation, ast.Subscript) and name_of(annotation.value) in ("Union", "Optional"):
        none = [ast.Constant(None)] if name_of(annotation.value) == "Optional" else []
        return [*(member for item in _items(annotation.slice) for member in _members(item)), *none]
    return [] if annotation is None else [annotation]


def _items(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _literal(values: list[Any]) -> Any:
    """``pissa_niter_[number of iters]`` among the values stands for any text in place of the brackets."""
    patterns = [value for value in values if isinstance(value, str) and "[" in value]
    fixed = [value for value in values if value not in patterns]
    kinds = [Annotated[str, StringConstraints(strict=True, pattern=_pattern(text))] for text in patterns]
    return Union[(Literal[tuple(fixed)], *kinds)] if kinds else Literal[tuple(fixed)]


def _pattern(text: str) -> str:
    return "^" + ".+".join(re.escape(part) for part in re.split(r"\[.*?\]", text)) + "$"


def _choices(member: ast.expr) -> list[str]:
    if isinstance(member, ast.Subscript) and name_of(member.value) == "Literal":
        return [str(item.value) for item in _items(member.slice) if isinstance(item, ast.Constant)]
    return []


def _short(member: ast.expr) -> str:
    return ", ".join(_choices(member)) or ast.unparse(member)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
