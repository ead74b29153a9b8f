"""The JSON Schema of a recipe, for exactly what is installed: what an editor completes, explains and underlines.

It says what a recipe may look like. What takes more than the recipe to know, the loader knows alone: whether files
exist, what an extended recipe says, what does not go together, and what a component's own validators refuse.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from sftplug.plugin.components import Component, DatasetSource, RecipeSection
from sftplug.plugin.kinds import NOUNS
from sftplug.plugin.registry import Registry
from sftplug.recipe.model import SOURCE_OF, Recipe, SourceSection
from sftplug.recipe.section import Section, ShortForm, as_share
from sftplug.recipe.train_options import train_schema
from sftplug.util.field_docs import field_docs

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def recipe_schema(registry: Registry, in_use: Iterable[str] = ()) -> Schema:
    """Return the JSON Schema of a recipe file, with the components that `registry` offers.

    A recipe that extends another may leave out whatever the other says, so for it nothing is required. `in_use` are
    plugins that a house file puts in use, whose sections no recipe need list them for.
    """
    writer = _Writer(registry)
    whole, part = writer.section(Recipe, False), writer.section(Recipe, True)
    plugins = ", ".join(map(str, registry.plugins.loaded.values()))
    return {
        "$schema": DIALECT,
        "title": "sftplug recipe",
        "$comment": f"Written by `sftplug schema` for: {plugins}.",
        "type": "object",
        "if": {"required": ["extends"], "properties": {"extends": {"type": "string"}}},
        "then": part,
        "else": {"allOf": [whole, *_listed(registry, in_use)]},
        "$defs": writer.definitions,
    }


def _listed(registry: Registry, in_use: Iterable[str]) -> Iterator[Schema]:
    """Yield what a section of a plugin asks for: that the plugin is listed, where nothing else can put it in use.

    A plugin that offers components too may be in use by any of them, which the loader finds out.
    """
    others = [of.values() for kind, of in registry.offers.items() if kind is not RecipeSection]
    named = {offer.plugin.name for offers in others for offer in offers} | {*in_use}
    for name, offer in sorted(registry.offers[RecipeSection].items()):
        plugin = offer.plugin.name
        if plugin not in named:
            listed = {"anyOf": [{"const": plugin}, {"type": "array", "contains": {"const": plugin}}]}
            wanted = {"required": ["plugins"], "properties": {"plugins": listed}}
            yield {"if": {"required": [name]}, "then": wanted}


@dataclass(slots=True)
class _Writer:
    """Writes each part once, under a name; `part` is the form in which nothing is required."""

    registry: Registry
    definitions: dict[str, Schema] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Kinds that stand among the definitions, or will."""

    def _define(self, name: str, part: bool, schema: Schema) -> Schema:
        name = f"{name.replace(' ', '_')}{'_in_part' if part else ''}"
        self.definitions[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    # --- sections ---

    def section(self, section: type[Section], part: bool) -> Schema:
        """Return a reference to the schema of a section of the core."""
        docs = field_docs(section)
        properties = {name: self._field(item, docs.get(name, ""), part) for name, item in section.model_fields.items()}
        required = [name for name, item in section.model_fields.items() if item.is_required()]
        if section is SourceSection:
            return self._define("source_section", part, self._sources(properties, required, part))
        if section is Recipe:
            _open(properties, required, part)
            properties |= {name: self._own(name, options, part) for name, options in self._offered(RecipeSection)}
        schema = _object(properties, [] if part else required, inspect.getdoc(section))
        if section.shorthand:
            schema = {"anyOf": [{"type": "string"}, schema]}
        return self._define(section.__name__, part, schema)

    def _field(self, item: FieldInfo, documented: str, part: bool) -> Schema:
        schema = self._value(item.annotation, item.metadata, part)
        words = item.description or documented
        described = {"description": _one_line(words)} if words else {}
        return {**schema, **described, **_default(item)}

    def _value(self, annotation: Any, metadata: Sequence[Any], part: bool) -> Schema:
        inner = [item for part in typing.get_args(annotation) for item in typing.get_args(part)]  # of ``Share | None``
        forms = [item.func for item in (*metadata, *inner) if isinstance(item, BeforeValidator)]
        if ShortForm.UNIONS in metadata:
            return _any_of([self._maskings(), *_null_in(annotation)])
        if ShortForm.ONE_FOR_A_LIST in metadata:
            (inner, *_) = typing.get_args(annotation)
            least = next((item.min_length for item in metadata if isinstance(item, MinLen)), 0)
            many = {"type": "array", "items": self._type(inner, False), "minItems": least}
            return {"anyOf": [self._type(inner, part), many]}
        if _holds_parts(annotation):
            return self._type(annotation, part)
        limits = tuple(item for item in metadata if not isinstance(item, BeforeValidator))
        plain = _without_forms(annotation)
        whole: Any = Annotated[(plain, *limits)] if limits else plain
        leaf = TypeAdapter(whole).json_schema(schema_generator=_Lenient)
        return {"anyOf": [leaf, {"type": "string", "pattern": _PER_CENT}]} if as_share in forms else _untitled(leaf)

    def _type(self, annotation: Any, part: bool) -> Schema:
        if inspect.isclass(annotation) and issubclass(annotation, Component):
            return self._component(annotation, part)
        if inspect.isclass(annotation) and issubclass(annotation, Section):
            return self.section(annotation, part)
        if typing.get_origin(annotation) in (tuple, list) and _holds_parts(annotation):
            return {"type": "array", "items": self._type(typing.get_args(annotation)[0], False)}
        if _null_in(annotation):
            inner = [self._type(item, part) for item in typing.get_args(annotation) if item is not type(None)]
            return _any_of([*inner, {"type": "null"}])
        return _untitled(TypeAdapter(annotation).json_schema(schema_generator=_Lenient))

    # --- components ---

    def _component(self, kind: type[Component], part: bool) -> Schema:
        """Return every way to write a component: its name, a mapping with a type, its name with options."""
        name = f"{NOUNS[kind]}{'_in_part' if part else ''}".replace(" ", "_")
        if name in self.begun:  # a component whose options hold one of its own kind
            return {"$ref": f"#/$defs/{name}"}
        self.begun.add(name)
        written = [self._by_name(kind), *self._mappings(kind, part)]
        if kind is DatasetSource:  # within a component, `path` says that it is a file, as in a section
            written += [options for name, options in self._offered(kind) if name in SOURCE_OF.values()]
        return self._define(NOUNS[kind], part, {"anyOf": written, "description": _one_line(inspect.getdoc(kind))})

    def _by_name(self, kind: type[Component]) -> Schema:
        """Return the names that can stand alone: those of components that need no option."""
        return {"enum": [name for name, options in self._offered(kind) if not options.get("required")]}

    def _mappings(self, kind: type[Component], part: bool) -> list[Schema]:
        return [way for name, options in self._offered(kind) for way in self._ways(kind, name, options, part)]

    def _ways(self, kind: type[Component], name: str, options: Schema, part: bool) -> list[Schema]:
        component = self.registry.offers[kind][name].component
        typed = {**options, "properties": {"type": {"const": name}, **options["properties"]}}
        typed["required"] = [] if part else ["type", *options.get("required", ())]
        short = options["properties"].get(component.shorthand)
        alone = short is not None and set(options.get("required", ())) <= {component.shorthand}
        named = _object({name: {"anyOf": [options, short]} if alone else options}, [name])
        noun = f"{NOUNS[kind]}.{name}"
        return [self._define(noun, part, typed), self._define(f"{noun}.named", False, named)]

    def _offered(self, kind: type[Component]) -> list[tuple[str, Schema]]:
        offers = sorted(self.registry.offers[kind].items())
        return [(name, self._options(offer.component)) for name, offer in offers]

    def _options(self, component: type[Component]) -> Schema:
        """Return the schema of a component's options, its ``type`` left out; parts of it go to the definitions."""
        template = f"#/$defs/{component.__module__}.{component.__name__}.{{model}}"
        schema = component.model_json_schema(ref_template=template, schema_generator=_Lenient)
        for name, inner in schema.pop("$defs", {}).items():
            self.definitions[f"{component.__module__}.{component.__name__}.{name}"] = inner
        properties = {name: _untitled(item) for name, item in schema["properties"].items() if name != "type"}
        for name, option in component.model_fields.items():
            if _holds_components(option.annotation):
                said = {key: properties[option.alias or name].get(key) for key in ("description", "default")}
                held = self._type(option.annotation, False)
                properties[option.alias or name] = {**held, **{key: item for key, item in said.items() if item}}
        required = [name for name in schema.get("required", ()) if name != "type"]
        return _object(properties, required, inspect.getdoc(component))

    def _own(self, name: str, options: Schema, part: bool) -> Schema:
        """Return a section that a plugin owns; the loader knows whether the plugin is in use."""
        offer = self.registry.offers[RecipeSection][name]
        said = f"{options.get('description', '')} A section of the plugin {offer.plugin.name}, for recipes that use it."
        typed = {"type": {"const": name}, **options["properties"]}
        schema = {**options, "description": said.strip(), "properties": typed}
        if part:
            schema.pop("required", None)
        short = typed.get(offer.component.shorthand or "")
        return self._define(f"section.{name}", part, {"anyOf": [schema, short]} if short else schema)

    # --- two sections that are written in a way of their own ---

    def _maskings(self) -> Schema:
        kind = next(kind for kind, noun in NOUNS.items() if noun == "masking")
        alone = self._by_name(kind)
        names = "|".join(map(re.escape, alone["enum"]))
        union = {"type": "string", "pattern": rf"^\s*({names})(\s*\+\s*({names}))*\s*$"}
        one = self._component(kind, False)
        item = {"anyOf": [one, union, {"type": "array", "items": one}]}
        return self._define("maskings", False, {"anyOf": [one, union, {"type": "array", "items": item}]})

    def _sources(self, properties: Schema, required: list[str], part: bool) -> Schema:
        """Return the ways to write a source: its options stand beside those of its section."""
        mapping = {"anyOf": self._mappings(DatasetSource, False)}
        own = {name: item for name, item in properties.items() if name != "source"}
        ways = [_object({**own, "source": mapping}, [] if part else required)]
        for name, options in self._offered(DatasetSource):
            needed = {*required, *options.get("required", ())}
            if any(source == name and key in needed for key, source in SOURCE_OF.items()):
                needed.remove("source")  # the option says it
            stated = {**options["properties"], **own, "source": {"const": name}}
            ways.append(_object(stated, [] if part else sorted(needed), options.get("description")))
        return {"anyOf": ways}


def _open(properties: Schema, required: list[str], part: bool) -> None:
    """Say of a recipe what its class does not: that it may extend another, and what is filled in."""
    required.remove("quantization")  # left out or null, the adapter says what suits it
    properties["quantization"] = {"anyOf": [properties["quantization"], {"type": "null"}]}
    properties["extends"] = {
        "type": ["string", "null"],
        "description": "The recipe that this one is laid over: a path, or the name of a shipped recipe.",
    }
    properties["train"] = {**properties["train"], **train_schema()}


# --- small parts ------------------------------------------------------------------------------------------------------

_PER_CENT = r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$"


class _Lenient(GenerateJsonSchema):
    """What JSON Schema has no words for is left open rather than an error: the loader checks it."""

    ignored_warning_kinds: set[Any] = {  # noqa: RUF012 - pydantic's own
        "skipped-choice",
        "non-serializable-default",
        "skipped-discriminator",
    }

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


def _object(properties: Mapping[str, Any], required: Iterable[str], description: str | None = None) -> Schema:
    described = {"description": _one_line(description)} if description else {}
    needed = {"required": list(required)} if required else {}
    return {"type": "object", **described, "properties": dict(properties), **needed, "additionalProperties": False}


def _any_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _untitled(schema: Schema) -> Schema:
    """Leave out the titles that pydantic makes of names: they say nothing new."""
    return {
        key: [_untitled(item) if isinstance(item, dict) else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in schema.items()
        if key != "title"
    }


def _default(item: FieldInfo) -> Schema:
    plain = isinstance(item.default, str | int | float | bool) or (item.default is None and not item.is_required())
    return {"default": item.default} if plain and not item.default_factory else {}


def _without_forms(annotation: Any) -> Any:
    """Return an annotation without what reads short forms: before that, JSON Schema would not say the limits."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        kept = tuple(item for item in inner[1:] if not isinstance(item, BeforeValidator))
        return Annotated[(inner[0], *kept)] if kept else inner[0]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_without_forms, inner))]  # noqa: UP007 - built at run time
    return annotation


def _null_in(annotation: Any) -> list[Schema]:
    return [{"type": "null"}] if type(None) in typing.get_args(annotation) else []


def _holds_parts(annotation: Any) -> bool:
    """Whether a component or a section stands in `annotation`."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return True
    return any(_holds_parts(item) for item in typing.get_args(annotation))


def _holds_components(annotation: Any) -> bool:
    """Whether a kind of component stands in `annotation`."""
    if inspect.isclass(annotation) and issubclass(annotation, Component):
        return True
    return any(_holds_components(item) for item in typing.get_args(annotation))


def _one_line(text: str | None) -> str:
    return " ".join(str(text or "").split())
