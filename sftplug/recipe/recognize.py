"""The format of rows for which a recipe names none: asked of every installed format, by the first rows.

One that recognizes them is as good as written. Several, or none, are an error: what was guessed wrongly would be
trained wrongly, and nobody would see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from sftplug.errors import DataError, PluginError, Problem
from sftplug.plugin.calls import component_problems, first_rows, hand_over, label, outcomes, recognition
from sftplug.plugin.components import PARTS, DatasetFormat, RowProcessor, StreamProcessor
from sftplug.plugin.errors import plugin_error
from sftplug.plugin.registry import Registry
from sftplug.recipe.choices import Parts
from sftplug.recipe.describe import in_one_line
from sftplug.recipe.left_out import LeftOut
from sftplug.recipe.model import Recipe, SourceSection
from sftplug.recipe.problems import problem_at
from sftplug.recipe.yaml import Path_, Tree
from sftplug.types.conversation import Row
from sftplug.types.processing import RowContext
from sftplug.types.recognition import Recognized
from sftplug.util.redact import redact

FROM_ROWS = "read from the rows"
"""The origin of a format that a recipe leaves out."""
LOOKED_AT = 50
"""So many rows of a source are looked at."""


@dataclass(frozen=True, slots=True)
class Found:
    """The format of one source."""

    path: Path_
    section: SourceSection
    """As it was when its rows were looked at."""
    written: Mapping[str, Any]
    """Type and options, as a recipe has them."""
    by: str
    """What its rows were known by."""

    def __str__(self) -> str:
        return f"{label(self.section.source)}: read as {self.written['type']} ({self.by})"


@dataclass(slots=True)
class Recognition:
    """Puts a format where a recipe has none."""

    tree: Tree
    registry: Registry
    problems: list[Problem]
    found: list[Found] = field(default_factory=list)
    known: Sequence[Found] = ()

    def complete(self, recipe: Recipe, known: Sequence[Found] = ()) -> Recipe:
        """Return `recipe` with every format; what cannot be told is among the problems.

        What is `known` of the same rows is not asked again.
        """
        data, self.known = recipe.data, known
        splits = {name: self._split(recipe, name, getattr(data, name)) for name in ("train", "eval")}
        return recipe.model_copy(update={"data": data.model_copy(update=splits)}) if self.found else recipe

    def _split(self, recipe: Recipe, name: str, sections: Sequence[SourceSection]) -> tuple[SourceSection, ...]:
        made = []
        for index, section in enumerate(sections):
            path: Path_ = ("data", name, index, "format")
            found = self._of(recipe, section, path) if isinstance(section.format, LeftOut) else None
            if found is not None:
                self.found.append(found)
                section = section.model_copy(update={"format": self._made(found)})
            made.append(section)
        return tuple(made)

    def _of(self, recipe: Recipe, section: SourceSection, path: Path_) -> Found | None:
        for before in self.known:
            if _same_rows(before.section, section):
                hand_over(before.section.source, section.source)
                return Found(path, section, before.written, before.by)
        if component_problems(section.source, recipe):
            return None  # that is said already
        try:
            rows = _first_rows(recipe, section, path)
        except DataError as error:
            text = f"is left out, and cannot be read from the rows: {redact(str(error))}"
            self.problems.append(problem_at(self.tree, path, text))
            return None
        return self._choose(rows, section, path)

    def _choose(self, rows: Sequence[Mapping[str, Any]], section: SourceSection, path: Path_) -> Found | None:
        own, others = candidates(self.registry, rows) if rows else ({}, {})
        if len(own) == 1:
            ((name, match),) = own.items()
            return Found(path, section, {"type": name, **match.options}, match.by)
        if not rows:
            text = f"is left out, and {label(section.source)} has no row by which it could be told."
        elif own:
            text = several(own)
        else:
            text = none(rows, others, self.registry)
        self.problems.append(problem_at(self.tree, path, text))
        return None

    def _made(self, found: Found) -> DatasetFormat:
        return make_format(found.written, self.registry)


def make_format(written: Mapping[str, Any], registry: Registry) -> DatasetFormat:
    """Return the format that a recipe would get by these lines.

    Raises PluginError for a format that recognizes rows with options that it does not take.
    """
    parts = Parts(registry)
    try:
        return cast("DatasetFormat", parts(DatasetFormat, dict(written), {PARTS: parts}))
    except ValidationError as error:
        kind = cast("type[DatasetFormat]", registry.classes()[DatasetFormat][written["type"]])
        (first, *_) = error.errors()
        place = ".".join(map(str, first["loc"][1:])) or "options"
        text = f"recognizes rows with options that it does not take: {place}: {first['msg']}"
        raise plugin_error(kind, "recognizes", text) from error


def put_in(tree: Tree, found: Sequence[Found]) -> None:
    """Write the formats that were found into a tree, as if they had been written there."""
    if not found:
        return
    data = {**tree.data["data"]}
    data.update({split: [*data[split]] for split in ("train", "eval") if split in data})
    for each in found:
        sections, index = data[str(each.path[1])], int(each.path[2])
        sections[index] = {**sections[index], "format": dict(each.written)}
        tree.origins[each.path] = FROM_ROWS
        tree.origins.update({(*each.path, name): FROM_ROWS for name in each.written})
    tree.data["data"] = data


# --- the rows ---------------------------------------------------------------------------------------------------------


def _same_rows(one: SourceSection, other: SourceSection) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("source", "process", "ignore", "first"))


def _first_rows(recipe: Recipe, section: SourceSection, path: Path_) -> list[Mapping[str, Any]]:
    """Return the first rows as a format would get them. Raises DataError for a source that cannot be read."""
    rows = first_rows(section.source, min(section.first or LOOKED_AT, LOOKED_AT))
    together = recipe.data.process if path[1] == "train" else ()
    for processor in (*section.process, *together):
        rows = _processed(processor, rows, str(path[1]))
    return [{name: value for name, value in row.data.items() if name not in section.ignore} for row in rows]


def _processed(processor: RowProcessor, rows: list[Row], split: str) -> list[Row]:
    context = RowContext(0, split, lambda: iter(()))
    try:
        return [row for outcome in outcomes(processor, rows, context) for row in outcome.made]
    except DataError:
        # One that draws 1,000 rows finds 50 too few. What rows look like is not changed by such a processor.
        if isinstance(processor, StreamProcessor):
            return rows
        raise


# --- the formats ------------------------------------------------------------------------------------------------------


def candidates(
    registry: Registry, rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Recognized], dict[str, str | None]]:
    """Return the formats that recognize rows, and why the others do not; None for one that never says."""
    own: dict[str, Recognized] = {}
    others: dict[str, str | None] = {}
    for name, component in _classes(registry):
        try:
            answer = recognition(component, rows)
        except PluginError as error:  # a broken plugin that the recipe need not use costs a warning
            registry.unusable.append(str(error))
            answer = "does not work, as is said below"
        if isinstance(answer, Recognized):
            own[name] = answer
        else:
            others[name] = answer
    return own, others


def _classes(registry: Registry) -> Iterator[tuple[str, type[DatasetFormat]]]:
    for name, offer in sorted(registry.offers[DatasetFormat].items()):
        if offer.library is None:  # else all that a library offers would be made for the question
            yield name, cast("type[DatasetFormat]", offer.component)


def several(own: Mapping[str, Recognized]) -> str:
    """Return the sentence about rows that several formats recognize."""
    ways = "; ".join(
        f"`format: {in_yaml({'type': name, **match.options})}` ({match.by})" for name, match in own.items()
    )
    return f"is left out, and {len(own)} formats recognize the rows. Write the one that is meant: {ways}."


def none(rows: Sequence[Mapping[str, Any]], others: Mapping[str, str | None], registry: Registry) -> str:
    """Return the sentence about rows that no format recognizes, with what each says."""
    columns = ", ".join(dict.fromkeys(str(name) for row in rows for name in row))
    said = [f"{name}: {why}" for name, why in others.items() if why]
    silent = [name for name, why in others.items() if not why]
    more = f" Others are taken only where a recipe names them: {', '.join(silent)}." if silent else ""
    faults = [*registry.plugins.broken.values(), *registry.unusable]
    broken = "".join(f" Note: {str(fault).rstrip('.')}." for fault in faults)
    return (
        f"is left out, and no installed format recognizes the rows, which have the columns {columns}. "
        f"{'; '.join(said)}.{more}{broken}"
    )


def in_yaml(value: Any) -> str:
    """Return plain data as one line of YAML: ``{type: messages, column: talk}``; a format without options by name."""
    only = isinstance(value, Mapping) and set(value) == {"type"}
    return in_one_line(value["type"] if only else value)
