"""Read YAML as data, and remember the file and line of every value."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sftplug.errors import Problem, RecipeError

Path_ = tuple[str | int, ...]
"""Where a value stands: keys and list indices from the root."""


class LocatedStr(str):
    """A string that knows the folder of the file it was written in, so that a path in it can be resolved."""

    __slots__ = ("base",)
    base: Path

    def __new__(cls, value: str, base: Path) -> LocatedStr:
        """Return `value` with the folder `base`."""
        located = super().__new__(cls, value)
        located.base = base
        return located


@dataclass(slots=True)
class Tree:
    """Plain data and, for every value in it, where it was written."""

    data: Any
    origins: dict[Path_, str] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with the numbers and booleans that a person expects.

    YAML 1.1 reads ``1e-4`` as a string and ``on`` or ``no`` as a boolean; YAML 1.2 reads the one as a number and the
    others, and dates, as strings.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - a table of PyYAML's own
        first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
        for _REPLACED in [tuple(f"tag:yaml.org,2002:{name}" for name in ("float", "bool", "timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(file: Path) -> Tree:
    """Return the mapping in `file` with its origins. Raises RecipeError for what is not a YAML mapping."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(file), [Problem("recipe", f"cannot be read: {error}")]) from error
    tree = parse_yaml(text, name=file.name, base=file.parent)
    if tree.data is None:
        raise RecipeError(str(file), [Problem("recipe", "is empty", file.name)])
    if not isinstance(tree.data, dict):
        raise RecipeError(str(file), [Problem("recipe", "must be a mapping of sections", f"{file.name}:1")])
    return tree


def parse_yaml(text: str, name: str, base: Path) -> Tree:
    """Return the data in `text`; its origins read ``name:line``. Raises RecipeError on bad syntax."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        tree = Tree(None)
        if node is not None:
            tree.data = _construct(node, (), _Context(tree.origins, name, base, _Loader("")))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        origin = f"{name}:{mark.line + 1}" if mark else name
        what = f"is not valid YAML: {error.problem or error.context}"
        raise RecipeError(name, [Problem("recipe", what, origin)]) from error
    except yaml.YAMLError as error:
        raise RecipeError(name, [Problem("recipe", f"is not valid YAML: {error}", name)]) from error
    return tree


@dataclass(frozen=True, slots=True)
class _Context:
    origins: dict[Path_, str]
    name: str
    base: Path
    loader: _Loader


def _construct(node: yaml.Node, path: Path_, context: _Context) -> Any:
    context.origins[path] = f"{context.name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        _refuse_tag(node, "map")
        return _construct_mapping(node, path, context)
    if isinstance(node, yaml.SequenceNode):
        _refuse_tag(node, "seq")
        return [_construct(item, (*path, index), context) for index, item in enumerate(node.value)]
    _refuse_tag(node, "str", "int", "float", "bool", "null")
    value = context.loader.construct_object(node)
    return LocatedStr(value, context.base) if isinstance(value, str) else value


def _refuse_tag(node: yaml.Node, *allowed: str) -> None:
    """Recipes are data: a tag that asks for anything else is refused."""
    if node.tag not in [f"tag:yaml.org,2002:{name}" for name in allowed]:
        problem = f"a recipe is plain data, and the tag '{node.tag}' is not"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _construct_mapping(node: yaml.MappingNode, path: Path_, context: _Context) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            problem = "`<<` is not read: `extends:` lays one recipe over another"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        key: Hashable = context.loader.construct_object(key_node)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem=f"a key must be text, not {key!r}", problem_mark=key_node.start_mark)
        if key in mapping:
            raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
        mapping[key] = _construct(value_node, (*path, key), context)
        # An unknown key is best shown where the key stands, not where its value begins.
        context.origins[(*path, key)] = f"{context.name}:{key_node.start_mark.line + 1}"
    return mapping
