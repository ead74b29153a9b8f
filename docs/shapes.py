"""The page of shapes of rows that people have, from the folders that the tests try."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ZOO = Path(__file__).parents[1] / "tests" / "data" / "zoo"
LONGEST = 60
"""So many characters of a text are shown."""

_INTRODUCTION = """# Shapes of rows

What becomes of rows as people have them, under the recipe that a person would write first, with the template `chatml`.
A test goes through every line of these tables: it compares what is trained, text by text; and of rows that are refused,
it pastes each way out that the error offers into the recipe, and compares what is trained then. The rows and the whole
recipes are in `tests/data/zoo/`; a folder more there is a line more here."""
_TAKEN = ("| shape | lines of the recipe | trained, first reply | told |", "|---|---|---|---|")
_REFUSED = (
    "| shape | lines of the recipe | what the error says | its way out | trained then |",
    "|---|---|---|---|---|",
)


def shapes_page() -> str:
    """Return the page: what goes in as it is, and what is refused with a way out."""
    shapes = [(folder.name, _read(folder, "recipe"), _read(folder, "expected")) for folder in _folders()]
    taken = [_taken(*shape) for shape in shapes if "trained" in shape[2]]
    refused = [line for shape in shapes if "ways" in shape[2] for line in _refused(*shape)]
    went, stayed = f"## That go in ({len(taken)})", f"## That are refused, with a way out ({len(shapes) - len(taken)})"
    return "\n".join([_INTRODUCTION, "", went, "", *_TAKEN, *taken, "", stayed, "", *_REFUSED, *refused, ""])


def _folders() -> list[Path]:
    return sorted(folder for folder in ZOO.iterdir() if folder.is_dir())


def _read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def _taken(name: str, recipe: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    return _row(_titled(name, expected), _lines(recipe), _first(expected), _told(expected))


def _refused(name: str, recipe: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return a line for each way out of a shape that is refused."""
    rows = []
    for number, way in enumerate(expected["ways"]):
        steps = way.get("steps") or [way]
        pasted = "; ".join(_code(step["says"]) for step in steps)
        before = (_titled(name, expected), _lines(recipe), "; ".join(map(_code, expected["refused"])))
        rows.append(_row(*(before if number == 0 else ("", "", "")), pasted, _first(way)))
    return rows


def _titled(name: str, expected: Mapping[str, Any]) -> str:
    return f"{expected['shape']} (`{name}`)"


def _lines(recipe: Mapping[str, Any]) -> str:
    """Return the recipe in one line, which YAML reads as well."""
    written = yaml.safe_dump(dict(recipe), default_flow_style=True, sort_keys=False, width=10**6)
    return _code(written.strip().removeprefix("{").removesuffix("}"))


def _first(expected: Mapping[str, Any]) -> str:
    """Return the first stretch that is trained, shortened."""
    rows = expected.get("trained") or []
    rows = rows["train"] if isinstance(rows, Mapping) else rows
    first = next((text for row in rows for text in row), None)
    if first is None:
        return "nothing"
    shown = first if len(first) <= LONGEST else f"{first[: LONGEST - 2]} …"
    return _code(shown)


def _told(expected: Mapping[str, Any]) -> str:
    told = [f"{kind}: {rows}" for kind, rows in {**expected.get("noted", {}), **expected.get("dropped", {})}.items()]
    unread = expected.get("unread", [])
    return _escaped("; ".join([*told, *([f"not read: {', '.join(unread)}"] if unread else [])]))


def _code(text: str) -> str:
    """Return text as code in a cell: line breaks are written out, and a backtick does not end it."""
    written = text.replace("\n", "⏎").replace("|", "\\|")
    fence = "``" if "`" in written else "`"
    space = " " if "`" in written else ""
    return f"{fence}{space}{written}{space}{fence}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
