"""Say what pydantic found wrong in the words of the recipe: where, what is known, what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from sftplug.errors import Problem, did_you_mean
from sftplug.plugin.components import Component, RecipeSection
from sftplug.plugin.errors import place_of
from sftplug.plugin.manager import DISABLE_VARIABLE
from sftplug.plugin.registry import Offer, Registry
from sftplug.recipe.choices import NOTHING_OFFERED
from sftplug.recipe.model import Recipe, class_at, models_in
from sftplug.recipe.train_options import is_train_option
from sftplug.recipe.yaml import Path_, Tree, dotted
from sftplug.types.distributions import OFFERED_BY
from sftplug.util.arguments import argument


def problems_from(error: ValidationError, tree: Tree, root: type[BaseModel], registry: Registry) -> list[Problem]:
    """Return a Problem for each of the errors that pydantic collected, in the recipe's words."""
    defaults: list[Problem] = []
    found: dict[Path_, list[str]] = {}
    for detail in error.errors(include_url=False):
        if _follows(detail):
            continue
        owner = _owner_of_default(detail, root, registry)
        is_said = owner is not None or detail["type"] in ("missing", "extra_forbidden")
        path = _path_in(tree.data, detail["loc"], is_said=is_said)
        if owner is not None:
            defaults.append(_wrong_default(_sentence(detail, root, registry), path, tree, owner))
        else:
            found.setdefault(path, []).append(_sentence(detail, root, registry))
    return defaults + [problem_at(tree, path, text) for path, texts in found.items() for text in _joined(texts)]


def _follows(detail: Any) -> bool:
    """Whether a list is called too short because what is in it is wrong: that is said already."""
    return bool(detail["type"] == "too_short" and len(detail["input"]) > detail["ctx"]["actual_length"])


def _joined(texts: list[str]) -> list[str]:
    """Say ``must be x or y, not z`` of a value that may be one of several things and is none of them."""
    split = [text.partition(", not ") for text in texts]
    if len(texts) > 1 and all(start.startswith("must be ") and end == split[0][2] for start, _, end in split):
        wanted = " or ".join(start.removeprefix("must be ") for start, _, _ in split)
        return [f"must be {wanted}, not {split[0][2]}"]
    return texts


def problem_at(tree: Tree, path: Path_, text: str) -> Problem:
    """Return a Problem with the value at `path`, at the place where the recipe has it; a component is at its name."""
    path = tree.name_at(path)
    return Problem(dotted(tree.place(path)), text, origin_of(tree, path))


def origin_of(tree: Tree, path: Path_) -> str:
    """Return where the value at `path`, or the nearest value around it, was written."""
    for length in range(len(path), 0, -1):
        if path[:length] in tree.origins:
            return tree.origins[path[:length]]
    return tree.origins.get((), "")


def path_of(place: str) -> Path_:
    """Return ``("data", "train", 0, "format")`` for ``data.train[0].format``."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", place))


def _path_in(data: Any, loc: Sequence[str | int], *, is_said: bool) -> Path_:
    """Return the path of pydantic's location, which has the name of each component after the component.

    What follows is left out where nothing is at it in `data`, such as the names of what a value may be, unless it is
    the key that is missing or too much, which `is_said` tells.
    """
    # Pydantic says ("adapter", "lora", "r"), with the name that chose among the adapters; in the recipe it is
    # ("adapter", "r").
    path: list[str | int] = []
    in_component = False
    for index, part in enumerate(loc):
        kind = None if in_component else class_at(path)
        if kind is not None and issubclass(kind, Component) and isinstance(part, str):
            in_component = True
            continue
        is_there = part in data if isinstance(data, Mapping) else isinstance(data, list) and part in range(len(data))
        if is_there:
            data = data[part]
        elif isinstance(part, int) or not (kind is not None or (is_said and index == len(loc) - 1)):
            continue
        else:
            data = None  # what the recipe does not say has nothing below it
        path.append(part)
    return tuple(path)


_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a name or a mapping with a `type`",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
}
"""Pydantic's type of an error -> what a recipe may hold there."""


def _sentence(detail: Any, root: type[BaseModel], registry: Registry) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "missing":
        return "is required."
    if kind == "extra_forbidden":
        return _unknown_key(str(detail["loc"][-1]), detail["loc"][:-1], root, registry)
    if kind == "union_tag_invalid":
        return _unknown_component(context["tag"], _names_in(context["expected_tags"]), registry)
    if kind == "union_tag_not_found" and isinstance(value, Mapping):
        return _nameless(value, _model_at(detail["loc"], root, registry), registry)
    if kind == "value_error":
        text = str(context["error"])
        return text + _excuses(registry) if text.startswith(NOTHING_OFFERED) else text
    if value is None:
        return "is empty. Leave the key out, or give it a value."
    return _wrong_value(detail)


def _wrong_value(detail: Any) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "literal_error":
        known = _names_in(context["expected"])
        wanted = f"one of {', '.join(known)}" if len(known) > 1 else known[0]
        return f"must be {wanted}, not {_short(value)}.{did_you_mean(value, known)}"
    if kind == "union_tag_not_found":
        return f"must be a name or a mapping with a `type`, not {_short(value)}."
    if kind in _WANTED:
        return f"must be {_WANTED[kind].format(**context)}, not {_short(value)}."
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {_short(value)}."


def _owner_of_default(detail: Any, root: type[BaseModel], registry: Registry) -> Offer | None:
    """Return the component whose own default pydantic refused; None when the value is one of the recipe's."""
    *around, name = detail["loc"]
    model = _model_at(around, root, registry)
    field = model.model_fields.get(str(name)) if model is not None else None
    if field is None or field.default is not detail["input"]:
        return None
    offers = (offer for kind in registry.offers.values() for offer in kind.values())
    return next((offer for offer in offers if offer.made(model)), None)


def _wrong_default(wrong: str, path: Path_, tree: Tree, offer: Offer) -> Problem:
    """Blame the plugin: of this option the recipe says nothing."""
    text = f"the default that plugin {offer.plugin} gives it is wrong: {wrong.rstrip('.')}"
    return problem_at(tree, path, f"{text} ({place_of(offer.component)}). Set it in the recipe until it is fixed.")


def _unknown_key(name: str, around: Iterable[str | int], root: type[BaseModel], registry: Registry) -> str:
    around = list(around)
    known = _keys_at(around, root, registry)
    listed = f"Known: {', '.join(sorted(known))}." if known else "There are no options here."
    if around or not issubclass(root, Recipe):
        return f"unknown key.{did_you_mean(name, known)} {listed}"
    if is_train_option(name):
        return f"is an option of the trainer: write it into `train`, as `train.{name}`."
    hint = did_you_mean(name, [*known, *registry.offers[RecipeSection]])
    return f"unknown key.{hint} {listed}{_excuses(registry)}"


def _keys_at(around: Iterable[str | int], root: type[BaseModel], registry: Registry) -> list[str]:
    """Return the keys that the model at pydantic's location `around` knows."""
    around = list(around)
    model = _model_at(around, root, registry)
    # A source's options stand beside those of its section.
    section = _model_at(around[:-2], root, registry) if around[-2:-1] == ["source"] else None
    known = {**(section.model_fields if section else {}), **(model.model_fields if model else {})}
    return [field.alias or name for name, field in known.items() if name not in ("type", "source")]


def _model_at(around: Iterable[str | int], root: type[BaseModel], registry: Registry) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in around:
        if isinstance(part, str) and model is not None:
            model = _model_of_field(model, part) or _component_named(model, part, registry)
    return model


def _model_of_field(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = model.model_fields.get(name)
    return next(models_in(field.annotation), None) if field else None


def _component_named(model: type[BaseModel], name: str, registry: Registry) -> type[BaseModel] | None:
    return next(
        (
            offer.component
            for kind, offers in registry.offers.items()
            if issubclass(model, kind)
            for offer in [offers.get(name)]
            if offer
        ),
        None,
    )


def _unknown_component(name: str, known: list[str], registry: Registry) -> str:
    if not name:
        return "a name is missing beside `+`."
    if name in OFFERED_BY:
        text = (
            f"'{name}' is offered by {OFFERED_BY[name]}, which is not installed. Run: pip install {OFFERED_BY[name]}."
        )
        return text + _excuses(registry)
    hint = _variant(name, known, registry) or did_you_mean(name, known)
    text = f"'{name}' is not installed.{hint} Known: {', '.join(sorted(known)) or 'none'}."
    return text + _excuses(registry)


def _variant(name: str, known: Iterable[str], registry: Registry) -> str:
    """Return how the component of another name is told to be what people call `name`."""
    for offers in registry.offers.values():
        for offer in offers.values():
            if offer.name in known and offer.library is None and name in offer.component.variants:
                return (
                    f" It is '{offer.name}' with an option: `{{type: {offer.name}, {offer.component.variants[name]}}}`."
                )
    return ""


def _excuses(registry: Registry) -> str:
    """A plugin that did not load, or was blocked, may be the very one that offers the missing component."""
    plugins = registry.plugins
    broken = "".join(f" Note: {str(plugin).rstrip('.')}." for plugin in plugins.broken.values())
    blocked, off = ", ".join(sorted(plugins.blocked)), ", ".join(sorted(plugins.disabled))
    return (
        broken
        + (f" Note: blocked with {argument('--no-plugin')}: {blocked}." if blocked else "")
        + (f" Note: left out because {DISABLE_VARIABLE} is set: {off}." if off else "")
    )


def _nameless(value: Mapping[Any, Any], kind: type[BaseModel] | None, registry: Registry) -> str:
    """Say what is wrong with a component without ``type``: it may be meant as ``{name: options}``."""
    offers = next((offers for base, offers in registry.offers.items() if base is kind), {})
    if len(value) == 1 and offers:
        (name, options), *_ = value.items()
        if name in offers:
            return (
                f"`{name}` takes no bare value. Name its options, each with a value, as in `{name}: {{option: value}}`."
            )
        if isinstance(options, Mapping):  # as `{lora: {r: 8}}` is written
            return _unknown_component(str(name), [*offers], registry)
    return f"has no `type`.{_nearest_type(value, registry)}"


def _nearest_type(value: Mapping[str, Any], registry: Registry) -> str:
    names = ["type", *(name for offers in registry.offers.values() for name in offers)]
    return next((hint for key in value if (hint := did_you_mean(key, names))), "")


def _names_in(quoted: str) -> list[str]:
    """Return the names in pydantic's ``'a', 'b' or 'c'``."""
    return [name.strip().strip("'") for name in quoted.replace(" or ", ", ").split(",") if name.strip()]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
