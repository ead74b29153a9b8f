"""Narrow the recipe's classes to what is installed: each kind becomes a union discriminated by ``type``."""

from __future__ import annotations

import copy
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import GetCoreSchemaHandler, GetPydanticSchema, create_model
from pydantic_core import CoreSchema, core_schema

from sftplug.plugin.components import Component
from sftplug.plugin.errors import place_of
from sftplug.plugin.registry import Offer, Registry
from sftplug.recipe.model import Recipe, Section

NOTHING_OFFERED = "no installed plugin offers"


def recipe_class(registry: Registry) -> type[Recipe]:
    """Return `Recipe` with every kind replaced by the union of the components that `registry` offers."""
    return typing.cast("type[Recipe]", _narrow_section(Recipe, registry))


def _narrow_section(section: type[Section], registry: Registry) -> type[Section]:
    narrowed: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        annotation = _narrow(field.annotation, registry)
        if annotation is not field.annotation:
            narrowed[name] = (annotation, copy.copy(field))
    return create_model(section.__name__, __base__=section, __module__=section.__module__, **narrowed)


def _narrow(annotation: Any, registry: Registry) -> Any:
    """Replace kinds and sections wherever they stand inside `annotation`; return it itself if there are none."""
    if inspect.isclass(annotation) and issubclass(annotation, Component):
        return _union_of(annotation, registry)
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return _narrow_section(annotation, registry)
    inner = typing.get_args(annotation)
    narrowed = tuple(_narrow(item, registry) for item in inner)
    if all(new is old for new, old in zip(narrowed, inner, strict=True)):
        return annotation
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return Union[narrowed]  # noqa: UP007 - built at run time
    return Annotated[narrowed] if origin is Annotated else origin[narrowed]


def _union_of(kind: type[Component], registry: Registry) -> Any:
    offers, classes = registry.offers[kind], registry.classes()[kind]

    def schema(_source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A tagged union by hand, because pydantic's own needs at least two members and a plugin may be the only one.
        choices = {name: _choice(offer, handler, registry) for name, offer in offers.items()}
        # A name that several components claim can be written, and is answered with all of their plugins.
        choices |= {name: _refuse(str(clash)) for (of, name), clash in registry.clashes.items() if of is kind}
        if not choices:
            return _refuse(f"{NOTHING_OFFERED} any {kind.__name__}.")
        union = core_schema.tagged_union_schema(choices, discriminator="type")
        return core_schema.no_info_before_validator_function(lambda value: expand(value, classes), union)

    return Annotated[kind, GetPydanticSchema(schema)]


def _choice(offer: Offer, handler: GetCoreSchemaHandler, registry: Registry) -> CoreSchema:
    if offer.library is not None:
        return _when_named(offer)
    try:
        return handler.generate_schema(offer.component)
    except Exception as error:  # noqa: BLE001 - a class that pydantic cannot build must not end a run without it
        said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        text = f"plugin {offer.plugin}: the options of {offer.component.__name__} are no pydantic model: {said}"
        registry.unusable.append(f"{text} ({place_of(offer.component)})")
        return _refuse(registry.unusable[-1])


def _when_named(offer: Offer) -> CoreSchema:
    """Make the class, and its schema, only when a recipe names it: a library may offer very many."""

    def validate(value: Any) -> Any:
        return offer.component.model_validate(value)  # pydantic takes the errors in with their places

    return core_schema.no_info_plain_validator_function(validate)


def _refuse(text: str) -> CoreSchema:
    def refuse(_: object) -> None:
        raise ValueError(text)

    return core_schema.no_info_plain_validator_function(refuse)


def expand(value: Any, classes: Mapping[str, type[Component]]) -> Any:
    """Expand a bare name to ``{type: name}``, and ``{name: value}`` to the option that the component names for it."""
    if isinstance(value, str):
        return {"type": value}
    if not isinstance(value, Mapping) or "type" in value or len(value) != 1:
        return value
    (name, options), *_ = value.items()
    component = classes.get(name)
    if component is None:
        return value
    if isinstance(options, Mapping):
        return {"type": name, **options}
    return {"type": name, component.shorthand: options} if component.shorthand else value
