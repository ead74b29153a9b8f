"""Narrow the recipe's classes to what is installed: each kind becomes a union discriminated by ``type``."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union

from pydantic import GetCoreSchemaHandler, GetPydanticSchema, TypeAdapter, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from sftplug.plugin.components import Component
from sftplug.plugin.errors import place_of
from sftplug.plugin.registry import Offer, Registry
from sftplug.recipe.model import Recipe
from sftplug.recipe.section import Section
from sftplug.recipe.short_forms import spell_out_field

NOTHING_OFFERED = "no installed plugin offers"


def recipe_class(registry: Registry, sections: Mapping[str, Any] | None = None) -> type[Recipe]:
    """Return `Recipe` with every kind replaced by the union of the components that `registry` offers.

    `sections` are those of plugins: name -> annotation and default, as `pydantic.create_model` takes them.
    """
    return typing.cast("type[Recipe]", _narrow_section(Recipe, registry, sections or {}))


def policies_class(registry: Registry) -> type[Section]:
    """Return the section of a house file that names policies, of those that `registry` offers."""
    field = Recipe.model_fields["policies"]
    section: Any = create_model("Policies", __base__=Section, policies=(_narrow(field.annotation, registry), field))
    return typing.cast("type[Section]", section)


@dataclasses.dataclass(slots=True)
class Parts:
    """Makes the components that stand in options of others, of what `registry` offers."""

    registry: Registry
    _adapters: dict[type[Component], TypeAdapter[Any]] = dataclasses.field(default_factory=dict)

    def __call__(self, kind: type[Component], written: Any, context: Any) -> Component:
        """Return the component that is written. Raises ValidationError, whose places begin at it."""
        if kind not in self._adapters:
            self._adapters[kind] = TypeAdapter(_union_of(kind, self.registry))
        made: Component = self._adapters[kind].validate_python(written, context=context)
        return made


def _narrow_section(section: type[Section], registry: Registry, more: Mapping[str, Any] | None = None) -> type[Section]:
    narrowed: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        annotation = _narrow(field.annotation, registry)
        if annotation is not field.annotation:
            narrowed[name] = (annotation, _with_long_default(field))
    fields = {**narrowed, **(more or {})}
    return create_model(section.__name__, __base__=section, __module__=section.__module__, **fields)


def _with_long_default(field: FieldInfo) -> FieldInfo:
    """Return a copy of a field; its default is the name of a component in `Recipe`, and is validated like the rest."""
    narrowed = copy.copy(field)
    if isinstance(field.default, str):
        narrowed.default = spell_out_field(field.default, field, {})
    return narrowed


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
    offers = registry.offers[kind]

    def schema(_source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A tagged union by hand, because pydantic's own needs at least two members and a plugin may be the only one.
        choices = {name: _choice(offer, handler, registry) for name, offer in offers.items()}
        # A name that several components claim can be written, and is answered with all of their plugins.
        choices |= {name: _refuse(str(clash)) for (of, name), clash in registry.clashes.items() if of is kind}
        if not choices:
            return _refuse(f"{NOTHING_OFFERED} any {kind.__name__}.")
        return core_schema.tagged_union_schema(choices, discriminator="type")

    return Annotated[kind, GetPydanticSchema(schema)]


def refused(text: str) -> Any:
    """Return the annotation of what is written and cannot be had: `text` says why."""
    return Annotated[Any, GetPydanticSchema(lambda _source, _handler: _refuse(text))]


def is_usable(offer: Offer, registry: Registry) -> bool:
    """Whether pydantic can build a class on its own; why it cannot is kept in `registry`."""
    return _said_of(offer, lambda: TypeAdapter(offer.component), registry) is None


def _choice(offer: Offer, handler: GetCoreSchemaHandler, registry: Registry) -> CoreSchema:
    if offer.library is not None:
        return _when_named(offer)
    made: list[CoreSchema] = []
    said = _said_of(offer, lambda: made.append(handler.generate_schema(offer.component)), registry)
    return made[0] if said is None else _refuse(said)


def _said_of(offer: Offer, build: Callable[[], object], registry: Registry) -> str | None:
    """Return why a class cannot be built, which is kept in `registry` too; None if it can."""
    try:
        build()
    except Exception as error:  # noqa: BLE001 - a class that pydantic cannot build must not end a run without it
        said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        text = f"plugin {offer.plugin}: the options of {offer.component.__name__} are not a pydantic model: {said}"
        registry.unusable.append(f"{text} ({place_of(offer.component)})")
        return registry.unusable[-1]
    return None


def _when_named(offer: Offer) -> CoreSchema:
    """Make the class, and its schema, only when a recipe names it: a library may offer very many."""

    def validate(value: Any) -> Any:
        return offer.component.model_validate(value)  # pydantic takes the errors in with their places

    return core_schema.no_info_plain_validator_function(validate)


def _refuse(text: str) -> CoreSchema:
    def refuse(_: object) -> None:
        raise ValueError(text)

    return core_schema.no_info_plain_validator_function(refuse)
