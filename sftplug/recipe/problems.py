"""Say what pydantic found wrong in the words of the recipe: where, what is known, what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sftplug.blame import place_of
from sftplug.errors import Problem, did_you_mean
from sftplug.plugins import DISABLE_VARIABLE
from sftplug.recipe.choices import NOTHING_OFFERED
from sftplug.recipe.yaml import Path_, Tree
from sftplug.registry import Offer, Registry


def problems_from(error: ValidationError, tree: Tree, root: type[BaseModel], registry: Registry) -> list[Problem]:
    """Return a Problem for each of the errors that pydantic collected, in the recipe's words."""
    found = []
    for detail in error.errors(include_url=False):
        path = _path_in(tree.data, detail["loc"])
        owner = _owner_of_default(detail, root, registry)
        if owner is not None:
            found.append(_wrong_default(detail, path, tree, owner))
        else:
            found.append(problem_at(tree, path, _sentence(detail, path, tree, root, registry)))
    return found


def problem_at(tree: Tree, path: Path_, text: str) -> Problem:
    """Return a Problem at `path`, with the origin of the value or of what encloses it."""
    return Problem(dotted(path), text, origin_of(tree, path))


def origin_of(tree: Tree, path: Path_) -> str:
    """Return where the value at `path`, or the nearest value around it, was written."""
    for length in range(len(path), 0, -1):
        if path[:length] in tree.origins:
            return tree.origins[path[:length]]
    return tree.origins.get((), "")


def dotted(path: Path_) -> str:
    """Return ``data.train[0].format`` for ``("data", "train", 0, "format")``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "recipe"


def _path_in(data: Any, loc: Iterable[str | int]) -> Path_:
    """Drop from pydantic's location what the user did not write: union tags and the lists around single values."""
    path: list[str | int] = []
    loc = list(loc)
    for index, part in enumerate(loc):
        if isinstance(part, int):
            if not isinstance(data, list) or part >= len(data):
                continue
            data = data[part]
        elif part == "source" and index < len(loc) - 1 and _is_named(data):
            continue  # the source's options stand beside its name
        elif isinstance(data, Mapping) and part in data:
            data = data[part]
        elif (path and index < len(loc) - 1) or not isinstance(data, Mapping) or part == data.get("type"):
            continue
        else:
            data = None  # what the recipe does not say has nothing below it
        path.append(part)
    return tuple(path)


def _is_named(data: Any) -> bool:
    return isinstance(data, Mapping) and isinstance(data.get("source"), str)


def _sentence(detail: Any, path: Path_, tree: Tree, root: type[BaseModel], registry: Registry) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(str(detail["loc"][-1]), detail["loc"][:-1], root, registry)
    if kind == "missing":
        return "is required."
    if kind == "union_tag_invalid":
        return _unknown_component(context["tag"], _names_in(context["expected_tags"]), registry)
    if kind in ("union_tag_not_found", "model_attributes_type", "dict_type", "model_type"):
        return _needs_component(detail, registry)
    if kind == "literal_error":
        known = _names_in(context["expected"])
        return f"must be one of {', '.join(known)}, not {detail['input']!r}.{did_you_mean(detail['input'], known)}"
    if kind == "value_error":
        text = str(context["error"])
        return text + _excuses(registry) if text.startswith(NOTHING_OFFERED) else text
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {_short(detail['input'])}."


def _owner_of_default(detail: Any, root: type[BaseModel], registry: Registry) -> Offer | None:
    """Return the component whose own default pydantic refused; None when the value is one of the recipe's."""
    *around, name = detail["loc"]
    model = _model_at(around, root, registry)
    field = model.model_fields.get(str(name)) if model is not None else None
    if field is None or field.default is not detail["input"]:
        return None
    offers = (offer for kind in registry.offers.values() for offer in kind.values())
    return next((offer for offer in offers if offer.component is model), None)


def _wrong_default(detail: Any, path: Path_, tree: Tree, offer: Offer) -> Problem:
    """Blame the plugin: of this option the recipe says nothing."""
    name = detail["loc"][-1]
    path = path if path[-1:] == (name,) else (*path, name)
    wrong = f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {_short(detail['input'])}"
    text = f"the default that plugin {offer.plugin} gives it is wrong: {wrong} ({place_of(offer.component)})."
    return problem_at(tree, path, f"{text} Set it in the recipe until the plugin is mended.")


def _unknown_key(name: str, around: Iterable[str | int], root: type[BaseModel], registry: Registry) -> str:
    known = _keys_at(around, root, registry)
    listed = f" Known: {', '.join(sorted(known))}." if known else ""
    return f"unknown key.{did_you_mean(name, known)}{listed}"


def _keys_at(around: Iterable[str | int], root: type[BaseModel], registry: Registry) -> list[str]:
    """Return the keys that the model at pydantic's location `around` knows."""
    around = list(around)
    model = _model_at(around, root, registry)
    # A source's options stand beside those of its section.
    section = _model_at(around[: around.index("source")], root, registry) if "source" in around else None
    known = {**(section.model_fields if section else {}), **(model.model_fields if model else {})}
    return [name for name in known if name not in ("type", "source")]


def _model_at(around: Iterable[str | int], root: type[BaseModel], registry: Registry) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in around:
        if isinstance(part, str) and model is not None:
            model = _model_of_field(model, part) or _component_named(model, part, registry)
    return model


def _model_of_field(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = model.model_fields.get(name)
    return next(_models_in(field.annotation), None) if field else None


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


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _unknown_component(name: str, known: list[str], registry: Registry) -> str:
    text = f"'{name}' is not installed.{did_you_mean(name, known)} Known: {', '.join(sorted(known)) or 'none'}."
    return text + _excuses(registry)


def _excuses(registry: Registry) -> str:
    """A plugin that did not load, or was blocked, may be the very one that offers the missing component."""
    plugins = registry.plugins
    broken = "".join(f" Note: {str(plugin).rstrip('.')}." for plugin in plugins.broken.values())
    blocked, off = ", ".join(sorted(plugins.blocked)), ", ".join(sorted(plugins.disabled))
    return (
        broken
        + (f" Note: blocked with --no-plugin: {blocked}." if blocked else "")
        + (f" Note: left out because {DISABLE_VARIABLE} is set: {off}." if off else "")
    )


def _needs_component(detail: Any, registry: Registry) -> str:
    if detail["type"] == "union_tag_not_found" and isinstance(detail["input"], Mapping):
        return f"has no `type`.{_nearest_type(detail['input'], registry)}"
    return f"must be a name or a mapping with a `type`, not {_short(detail['input'])}."


def _nearest_type(value: Mapping[str, Any], registry: Registry) -> str:
    names = [name for offers in registry.offers.values() for name in offers]
    return next((hint for key in value if (hint := did_you_mean(key, names))), "")


def _names_in(quoted: str) -> list[str]:
    """Return the names in pydantic's ``'a', 'b' or 'c'``."""
    return [name.strip().strip("'") for name in quoted.replace(" or ", ", ").split(",") if name.strip()]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
