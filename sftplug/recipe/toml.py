"""Read TOML as data, and remember the line of every value, which the standard library's reader does not tell.

A file of TOML is a list of statements, ``[table]`` or ``key = value``, each of which begins on a line of its own and
can be read alone. So where a value stands is found by reading the statements one by one, after the whole.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sftplug.errors import Problem, RecipeError
from sftplug.recipe.yaml import MOST_LEVELS, LocatedStr, Path_, Tree, dotted

MOST_BYTES, MOST_LINES = 50_000, 500
"""Longest file: a statement of many lines is read once for each of them."""


def read_toml(file: Path) -> tuple[Tree, bytes]:
    """Return what is in `file`, with origins ``name:line``, and its bytes. Raises RecipeError for what is no TOML."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror or error}") from error
    if len(content) > MOST_BYTES or content.count(b"\n") > MOST_LINES:
        raise _refused(file, f"is longer than {MOST_BYTES:,} bytes or {MOST_LINES} lines.")
    try:
        text = content.decode("utf-8").replace("\r\n", "\n")
        data = tomllib.loads(text)
    except RecursionError as error:
        raise _refused(file, f"nests more than {MOST_LEVELS} tables and lists in each other.") from error
    except ValueError as error:  # of the decoder and of tomllib
        found = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = found[1] if found else str(content.count(b"\n") + 1)
        what = str(error).removesuffix(found[0]) if found else str(error)
        if "immutable namespace" in what:  # `policies = []` and `[[policies]]`
            what += ". A list is written `name = [...]` or `[[name]]`, and not both"
        raise _refused(file, f"is not valid TOML: {what}.", line) from error
    tree = Tree(None, _origins(text, file.name))
    problems: list[Problem] = []
    tree.data = _plain(data, (), tree, file.parent, problems)
    if problems:
        raise RecipeError(str(file), problems)
    return tree, content


def _refused(file: Path, text: str, line: str = "1") -> RecipeError:
    return RecipeError(str(file), [Problem("house file", text, f"{file.name}:{line}")])


def _plain(value: Any, path: Path_, tree: Tree, base: Path, problems: list[Problem]) -> Any:
    """Return `value` with texts that know their folder; dates and the like are no value that a recipe has."""
    if isinstance(value, dict):
        return {key: _plain(item, (*path, key), tree, base, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, (*path, index), tree, base, problems) for index, item in enumerate(value)]
    if isinstance(value, str):
        return LocatedStr(value, base)
    if not isinstance(value, bool | int | float):
        text = f"must be text, a number, true or false, a list or a table, not a {type(value).__name__}."
        problems.append(Problem(dotted(path), text, tree.origins.get(path, "")))
    return value


# --- lines ------------------------------------------------------------------------------------------------------------


def _origins(text: str, name: str) -> dict[Path_, str]:
    """Return path -> ``name:line`` of every value in a text that is known to be TOML."""
    found: dict[Path_, str] = {(): f"{name}:1"}
    table: Path_ = ()
    counts: dict[Path_, int] = {}
    for line, chunk in _statements(text):
        if chunk[0].lstrip().startswith("["):
            table = _header("\n".join(chunk), counts)
            paths = [(table[: index + 1], line) for index in range(len(table))]
        else:
            paths = [((*table, *path), line + below) for path, below in _values(chunk)]
        for path, at in paths:
            found.setdefault(path, f"{name}:{at}")
    return found


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, its lines) of each statement."""
    start, chunk = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not chunk and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start if chunk else number
        chunk.append(line)
        # ``plugins = [`` cannot be read alone, so its statement goes on; with the line that closes the list it can.
        if _parsed(chunk) is not None:
            yield start, chunk
            chunk = []


def _parsed(lines: list[str], end: str = "") -> dict[str, Any] | None:
    """Return what `lines` say; None where a statement is not at its end."""
    try:
        return tomllib.loads("\n".join(lines) + end)
    except ValueError:
        return None


def _header(text: str, counts: dict[Path_, int]) -> Path_:
    """Return the path of the table that ``[a.b]`` or ``[[a.b]]`` begins; `counts` has the lists of tables so far."""
    path: Path_ = ()
    value: Any = tomllib.loads(text)
    while value:
        ((name, value),) = value.items()
        path = (*path, name)
        if isinstance(value, list):
            counts[path] = counts.get(path, 0) + 1
            value = value[0]
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _values(chunk: list[str]) -> Iterator[tuple[Path_, int]]:
    """Yield (path, lines below the first) of each value of a statement.

    An item of a list stands where the list, closed behind it, holds it: of ``plugins = [`` and two names on two lines
    below, the first is in the list that ends with the second line.
    """
    for lines in range(1, len(chunk)):
        closed = _parsed(chunk[:lines], "\n]")
        yield from ((path, lines - 1) for path in _paths(closed or {}) if path)
    for path in _paths(_parsed(chunk) or {}):
        is_item = any(isinstance(part, int) for part in path)
        if path:
            yield path, len(chunk) - 1 if is_item else 0


def _paths(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))
