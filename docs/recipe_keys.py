"""The page of the recipe's own keys: every section that the core reads, from the classes and the schema of a recipe."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from sftplug.plugin.components import Component
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.registry import Registry
from sftplug.recipe.describe import Option, options_of
from sftplug.recipe.model import Recipe, models_in
from sftplug.recipe.schema import recipe_schema
from sftplug.recipe.section import Section, ShortForm

INTRODUCTION = """# Every key of a recipe

The keys that sftplug itself reads, section by section, with type, default and meaning. The options of a component stand
[with it](components.md), those of the trainer, `train`, [on a page of their own](train-options.md). A relative path is
relative to the file that names it. `sftplug explain RECIPE` shows what each of them is in a recipe of yours, and
`sftplug schema` prints all of this for your editor.
"""


def recipe_keys_page(registry: Registry) -> str:
    """Return the page: the recipe itself first, then its sections in the order of its keys."""
    schema = recipe_schema(registry)
    lines = [INTRODUCTION]
    for section, paths in sections().items():
        lines += [f"## {_heading(paths)}", "", _flat(inspect.getdoc(section)), "", *_table(section, schema), ""]
    return "\n".join(lines)


def sections() -> dict[type[Section], list[str]]:
    """Return section -> the paths at which it stands in a recipe; the recipe itself first, at no path."""
    found: dict[type[Section], list[str]] = {Recipe: []}
    for path, section in _below(Recipe, ""):
        found.setdefault(section, []).append(path)
    return found


def _below(section: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    for name, field in section.model_fields.items():
        for inner in models_in(field.annotation):
            if issubclass(inner, Section):
                yield f"{path}{name}", inner
                yield from _below(inner, f"{path}{name}.")


def _table(section: type[Section], schema: dict[str, Any]) -> Iterator[str]:
    yield from ("| key | type | default | |", "|---|---|---|---|")
    if section is Recipe:
        said = schema["$defs"]["Recipe"]["properties"]["extends"]["description"]
        yield f"| `extends` | text or null | `null` | {said} |"
    for option in options_of(section):
        kind, default = _type(section, option), _default(section, option, schema)
        yield f"| `{option.name}` | {kind} | {default} | {_rest(section, option)} |"


def _type(section: type[Section], option: Option) -> str:
    """Return the words for a type; a component is called by the name of its kind, another section links to it."""
    field = section.model_fields[option.name]
    inner = next(models_in(field.annotation), None)
    if inner is None:
        return option.type.replace("|", "\\|")
    name = f"[{NOUNS[inner]}](built-ins.md)" if issubclass(inner, Component) else f"[section](#{_anchor(inner)})"
    many = ", or a list" if any(isinstance(item, ShortForm) for item in field.metadata) else ""
    return f"{name}{many}{' or null' if option.type.endswith('or null') else ''}"


def _anchor(section: type[BaseModel]) -> str:
    """Return what the page calls the heading of a section in a link."""
    return next(_slug(_heading(paths)) for found, paths in sections().items() if found is section)


def _heading(paths: list[str]) -> str:
    return " and ".join(f"`{path}`" for path in paths) or "The recipe"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _default(section: type[Section], option: Option, schema: dict[str, Any]) -> str:
    if option.default == "required":
        return "*required*" if option.name in _required(section, schema) else "left open"
    return "see there" if option.default.startswith("{") and len(option.default) > 2 else f"`{option.default}`"


def _required(section: type[Section], schema: dict[str, Any]) -> set[str]:
    """Return the keys without which no way to write the section is complete."""
    name = "source_section" if "source" in section.model_fields else section.__name__
    definition = schema["$defs"][name]
    ways = [way for way in definition.get("anyOf", [definition]) if "properties" in way]
    return set.intersection(*(set(way.get("required", ())) for way in ways))


def _rest(section: type[Section], option: Option) -> str:
    """Return what an option means; of a section that says nothing there, what the section is for."""
    inner = next(models_in(section.model_fields[option.name].annotation), None)
    return _flat(option.description or inspect.getdoc(inner)).partition("\n\n")[0].replace("|", "\\|")


def _flat(text: str | None) -> str:
    return re.sub(r"`{2}", "`", str(text))
