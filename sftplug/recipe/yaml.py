"""Read YAML as data, and remember the file and line of every value; write data so that it is read as what it is.

A recipe may come from a stranger, and a few lines of YAML can stand for any number of values. So what a recipe may hold
is bounded, far above what anyone writes, and the bounds are looked at while it is read: beyond them nothing is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sftplug.errors import Problem, RecipeError

Path_ = tuple[str | int, ...]
"""Where a value stands: keys and list indices from the root."""


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield (path, value) of everything in plain data that holds nothing further."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    below = list(items)
    if not below:
        yield path, value
    for key, item in below:
        yield from leaves(item, (*path, key))


def dotted(path: Path_) -> str:
    """Return ``data.train[0].format`` for ``("data", "train", 0, "format")``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "recipe"


MOST_BYTES = 500_000
"""Longest file."""
MOST_VALUES = 20_000
"""Most keys and values in a file; what an alias repeats counts each time."""
MOST_LEVELS = 50
"""Most mappings and lists that stand in each other."""
MOST_CHARACTERS = 200
"""Longest number, and longest key, as they are written."""


class LocatedStr(str):
    """A string that knows the folder of the file it was written in, so that a path in it can be resolved."""

    __slots__ = ("base",)
    base: Path

    def __new__(cls, value: str, base: Path) -> LocatedStr:
        """Return `value` with the folder `base`."""
        located = super().__new__(cls, value)
        located.base = base
        return located

    def __getnewargs__(self) -> tuple[str, Path]:  # type: ignore[override]  # typeshed knows of str's own argument alone
        """Let it be copied and pickled: libraries do so with the options that they are given."""
        return str(self), self.base


@dataclass(slots=True)
class Tree:
    """Plain data and, for every value in it, where it was written."""

    data: Any
    origins: dict[Path_, str] = field(default_factory=dict)
    places: dict[Path_, Path_] = field(default_factory=dict)
    """Where a recipe has what stands elsewhere here, since short forms are spelled out: ``masking: assistant`` is
    ``("masking", 0, 0, "type")`` here, at the place ``("masking",)``."""

    def copy(self) -> Tree:
        """Return the tree with a root and notes of its own."""
        return Tree(dict(self.data), dict(self.origins), dict(self.places))

    def name_at(self, path: Path_) -> Path_:
        """Return the path of the name where that is how the recipe writes the component at `path`, else `path`."""
        name = (*path, "type")
        return name if self.places.get(name, name)[-1:] != ("type",) else path

    def place(self, path: Path_) -> Path_:
        """Return where the recipe has the value at `path`, or would have it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return (*self.places[path[:length]], *path[length:])
        return path


class Way(dict[Any, Any]):
    """A mapping that an override only goes through, on its way to the value that it sets.

    Its one key may be an integer, which is an index into a list.
    """


# --- from the file to a tree ------------------------------------------------------------------------------------------


def read_yaml(file: Path) -> Tree:
    """Return the mapping in `file` with its origins. Raises RecipeError for what is not a YAML mapping."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        # What is too long may be cut within a character, and is then refused for its length, not for that character.
        text = content[:MOST_BYTES].decode("utf-8", errors="strict" if len(content) <= MOST_BYTES else "ignore")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text: {error.reason} at byte {error.start}. Convert it first."
        raise RecipeError(str(file), [Problem("recipe", what, file.name)]) from error
    except OSError as error:
        raise RecipeError(str(file), [Problem("recipe", f"cannot be read: {error.strerror or error}")]) from error
    if len(content) > MOST_BYTES:
        what = f"is longer than {MOST_BYTES:,} bytes: it is not a recipe. Rows stand in files of their own"
        raise RecipeError(str(file), [Problem("recipe", f"{what}, which `data.train` names.", file.name)])
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
            tree.data = _construct(node, (), _Context(tree.origins, name, base, _Bounds()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        origin = f"{name}:{mark.line + 1}" if mark else name
        what = f"is not valid YAML: {error.problem or error.context}"
        raise RecipeError(name, [Problem("recipe", what, origin)]) from error
    except yaml.YAMLError as error:
        raise RecipeError(name, [Problem("recipe", f"is not valid YAML: {error}", name)]) from error
    except _TooMuch as error:
        raise RecipeError(name, [Problem("recipe", error.text, f"{name}:{error.line}")]) from error
    return tree


# --- bounds -----------------------------------------------------------------------------------------------------------


class _TooMuch(Exception):
    """A recipe holds more than it may."""

    def __init__(self, text: str, mark: Any) -> None:
        super().__init__(text)
        self.text = text
        self.line = mark.line + 1


@dataclass(slots=True)
class _Bounds:
    """How much has been read so far, and how deep the reader stands."""

    values: int = 0
    levels: int = 0

    @contextmanager
    def inside(self, mark: Any) -> Iterator[None]:
        """Count one value, which begins at `mark`, and stand in it. Raises _TooMuch when it is one too many."""
        self.values += 1
        self.levels += 1
        if self.values > MOST_VALUES:
            raise _TooMuch(f"holds more than {MOST_VALUES:,} keys and values, those that its aliases repeat too.", mark)
        if self.levels > MOST_LEVELS:
            raise _TooMuch(f"nests more than {MOST_LEVELS} mappings and lists in each other.", mark)
        yield
        self.levels -= 1


class _Loader(yaml.SafeLoader):
    """YAML's safe loader up to its nodes; within bounds, and with the scalars that a person expects.

    YAML 1.1 reads ``1e-4`` as a string, ``on`` or ``no`` as a boolean, ``010`` as eight, ``1:30`` as ninety and
    ``1_000`` as a thousand. YAML 1.2 (its core schema, section 10.3.2) reads ``1e-4`` as a number, ``010`` as ten,
    ``0o10`` as eight, and the others, and dates, as strings.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._bounds = _Bounds()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Read one more value."""
        with self._bounds.inside(self.peek_event().start_mark):  # type: ignore[no-untyped-call]
            node: yaml.Node | None = super().compose_node(parent, index)
            return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of what has none: of a scalar without quotes by how it is written."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _tag_of(value)
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


# --- scalars ----------------------------------------------------------------------------------------------------------


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    return float(re.sub(r"\.(?=[a-zA-Z])", "", text))  # YAML writes `.inf` and `.nan`


_SCALARS: Mapping[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"~|null|Null|NULL|"), lambda _: None),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    "int": (re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), _integer),
    "float": (
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        _float,
    ),
}
"""Name of the tag -> how such scalars are written and what they stand for; all others are strings."""

_TAG = "tag:yaml.org,2002:"


def _tag_of(text: str) -> str:
    """Return the tag of a scalar that is written without quotes."""
    return f"{_TAG}{next((name for name, (form, _) in _SCALARS.items() if form.fullmatch(text)), 'str')}"


def _scalar(node: yaml.ScalarNode, base: Path) -> Any:
    """Return what a scalar stands for. Raises MarkedYAMLError for a text that its tag does not fit."""
    text, name = node.value, node.tag.removeprefix(_TAG)
    if name == "str":
        if _NO_TEXT.search(text):
            raise yaml.MarkedYAMLError(problem=_WHY_NO_TEXT, problem_mark=node.start_mark)
        return LocatedStr(text, base)
    form, value = _SCALARS[name]
    if len(text) > MOST_CHARACTERS:
        raise _TooMuch(f"has a number of {len(text):,} characters.", node.start_mark)
    if not form.fullmatch(text):
        kind = "an int" if name == "int" else f"a {name}"
        raise yaml.MarkedYAMLError(problem=f"{text!r} is not {kind}", problem_mark=node.start_mark)
    number = value(text)
    if _is_too_large(number, text):
        raise _TooMuch(f"has a number that is too large: {text}.", node.start_mark)
    return number


_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_WHY_NO_TEXT = "a text holds a NUL or half of a character, which no path and no file of text can hold"


def _is_too_large(value: Any, text: str) -> bool:
    """Whether the libraries beneath could not hold `value`: whole numbers have 64 bits there."""
    if isinstance(value, float):
        return math.isinf(value) and "inf" not in text.lower()
    return isinstance(value, int) and not -(2**63) <= value < 2**64


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes if it would be anything else without them, for readers of YAML 1.1 and 1.2 alike."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag that a reader would give it."""
        tag = str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]
        plain_text = kind is yaml.ScalarNode and implicit[0] and tag == f"{_TAG}str"
        return _tag_of(value) if plain_text else tag


def write_yaml(data: Any, **form: Any) -> str:
    """Return plain data as YAML, which `parse_yaml` reads as the same data; `form` goes to PyYAML's ``dump``."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **form))


# --- values -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    origins: dict[Path_, str]
    name: str
    base: Path
    bounds: _Bounds
    around: set[int] = field(default_factory=set)
    """The nodes that the reader stands in."""


def _construct(node: yaml.Node, path: Path_, context: _Context) -> Any:
    """Return what `node` stands for; a node that aliases repeat is built again each time."""
    context.origins[path] = f"{context.name}:{node.start_mark.line + 1}"
    if id(node) in context.around:
        raise yaml.MarkedYAMLError(problem="an alias stands inside of what it repeats", problem_mark=node.start_mark)
    context.around.add(id(node))
    with context.bounds.inside(node.start_mark):
        value = _inside(node, path, context)
    context.around.remove(id(node))
    return value


def _inside(node: yaml.Node, path: Path_, context: _Context) -> Any:
    if isinstance(node, yaml.MappingNode):
        _refuse_tag(node, "map")
        return _construct_mapping(node, path, context)
    if isinstance(node, yaml.SequenceNode):
        _refuse_tag(node, "seq")
        return [_construct(item, (*path, index), context) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    _refuse_tag(node, "str", *_SCALARS)
    return _scalar(node, context.base)


def _refuse_tag(node: yaml.Node, *allowed: str) -> None:
    """Recipes are data: a tag that asks for anything else is refused."""
    if node.tag not in [f"{_TAG}{name}" for name in allowed]:
        problem = f"a recipe is plain data, and the tag '{node.tag[:MOST_CHARACTERS]}' is not"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _construct_mapping(node: yaml.MappingNode, path: Path_, context: _Context) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _key(key_node, context.base)
        if key in mapping:
            raise yaml.MarkedYAMLError(problem=f"the key '{key}' stands twice", problem_mark=key_node.start_mark)
        mapping[key] = _construct(value_node, (*path, key), context)
        # An unknown key is best shown where the key stands, not where its value begins.
        context.origins[(*path, key)] = f"{context.name}:{key_node.start_mark.line + 1}"
    return mapping


def _key(node: yaml.Node, base: Path) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise yaml.MarkedYAMLError(problem="a key must be text, not a list or mapping", problem_mark=node.start_mark)
    _refuse_tag(node, "str", *_SCALARS)
    key = _scalar(node, base)
    if len(node.value) > MOST_CHARACTERS:
        raise _TooMuch(f"has a key of {len(node.value):,} characters.", node.start_mark)
    if not isinstance(key, str):
        raise yaml.MarkedYAMLError(problem=f"a key must be text, not {key!r}", problem_mark=node.start_mark)
    if key == "<<" and node.style is None:
        problem = "`<<` is not read: `extends:` lays one recipe over another"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return str(key)
