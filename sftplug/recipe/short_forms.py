"""The short forms of a recipe, spelled out: what a layer says, in the one form that everything after it knows.

This is the only module that reads them; `schema` describes them to editors. What may be written, and what it means:

    adapter: lora                      {type: lora}                                a bare name
    model: org/name                    {name_or_path: org/name}                    the shorthand of a section
    chat_template: {file: a.jinja}     {type: file, path: a.jinja}                 the shorthand of a component
    adapter: {lora: {r: 8}}            {type: lora, r: 8}                          a name with its options
    callbacks: {type: samples, …}      [{type: samples, …}]                        one for a list
    masking: assistant + turns         [[{type: assistant}, {type: turns}]]        a union
    train: {path: a.jsonl, first: 5}   [{source: {type: file, path: …}, first: 5}] a source's options beside others
    format: {type: mine, base: text}   {type: mine, base: {type: text}}            an option that is a component
    journal: {leave_out: …}            {type: journal, leave_out: …}               a section that a plugin owns

Each value keeps its origin, and `Tree.places` tells where it was written, for messages: what is wrong with
``("masking", 0, 0, "weight")`` stands at ``masking.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sftplug.plugin.components import Component, DatasetSource, RecipeSection
from sftplug.plugin.registry import Classes
from sftplug.recipe.model import SOURCE_OF, Recipe, SourceSection, models_in
from sftplug.recipe.section import Section, ShortForm
from sftplug.recipe.yaml import Path_, Tree, Way

Offers = Mapping[type[Component], Mapping[str, type[Component]]]
"""Kind -> name -> class of what is installed."""


def spell_out(layer: Tree, offers: Offers) -> Tree:
    """Return `layer`, a file, a dict or an override, without short forms; what is spelled out already stays as it is.

    What is not a form at all is left as it is, for the validation to refuse. `layer` is not changed.
    """
    speller = _Speller(offers, layer)
    return Tree(speller.section(layer.data, Recipe, (), ()), speller.origins, speller.places)


def spell_out_field(value: Any, field: FieldInfo, offers: Offers) -> Any:
    """Return the value of one field of a section without short forms; components that are objects stay as they are."""
    return _Speller(offers, Tree(value)).field(value, field, (), ())


def spell_out_component(value: Any, kind: type[Component], offers: Offers) -> Any:
    """Return one component of a kind without short forms."""
    return _Speller(offers, Tree(value)).component(value, kind, (), ())


@dataclass(frozen=True, slots=True)
class _Speller:
    """Copies a layer. Of each value it is told `at`, where it will stand, and `said`, where the layer has it."""

    offers: Offers
    layer: Tree
    origins: dict[Path_, str] = field(default_factory=dict)
    places: dict[Path_, Path_] = field(default_factory=dict)

    def section(self, value: Any, section: type[Section], at: Path_, said: Path_) -> Any:
        if isinstance(value, str) and section.shorthand:
            self._note(at, said)
            return {section.shorthand: self.plain(value, (*at, section.shorthand), said)}
        if not isinstance(value, Mapping):
            return self.plain(value, at, said)
        self._note(at, said)
        if section is SourceSection:
            return self._source_section(value, at, said)
        return _like(value, self._fields(value, section, at, said))

    def _fields(self, value: Mapping[Any, Any], section: type[Section], at: Path_, said: Path_) -> dict[Any, Any]:
        fields = section.model_fields
        owned = self.offers.get(RecipeSection, {}) if section is Recipe else {}
        return {
            key: self._owned(item, owned[key], (*at, key), (*said, key))
            if key in owned
            else self.field(item, fields.get(key), (*at, key), (*said, key))
            for key, item in value.items()
        }

    def _owned(self, value: Any, section: type[Component], at: Path_, said: Path_) -> Any:
        """Spell out a section that a plugin owns: a component whose type is the key."""
        name = section.model_fields["type"].default
        if section.shorthand and not isinstance(value, Mapping | list | None):
            self._note(at, said)
            return {"type": name, section.shorthand: self.plain(value, (*at, section.shorthand), said)}
        if not isinstance(value, Mapping):
            return self.plain(value, at, said)
        self._note(at, said)
        options = {key: self._option(item, section, key, at, said) for key, item in value.items()}
        return _like(value, options if isinstance(value, Way) else {"type": name, **options})

    def field(self, value: Any, field: FieldInfo | None, at: Path_, said: Path_) -> Any:
        inner = next(models_in(field.annotation), None) if field is not None else None
        forms = field.metadata if field is not None else ()
        if ShortForm.UNIONS in forms:
            return self._items(value, self._union, inner, at, said)
        if ShortForm.ONE_FOR_A_LIST in forms:
            return self._items(value, self._part, inner, at, said)
        return self._part(value, inner, at, said)

    def _part(self, value: Any, model: Any, at: Path_, said: Path_) -> Any:
        """Spell out a section, a component, or what is neither."""
        if model is not None and issubclass(model, Section):
            return self.section(value, model, at, said)
        if model is not None and issubclass(model, Component):
            return self.component(value, model, at, said)
        return self.plain(value, at, said)

    # --- lists ---

    def _items(self, value: Any, item: Callable[..., Any], model: Any, at: Path_, said: Path_) -> Any:
        """Spell out each item; one alone stands for a list, and an override that says no index means the only one."""
        self._note(at, said)
        if isinstance(value, list | tuple):
            return [item(inner, model, (*at, index), (*said, index)) for index, inner in enumerate(value)]
        if isinstance(value, Way):
            (key, inner), *_ = value.items()
            if isinstance(key, int):
                return Way({key: item(inner, model, (*at, key), (*said, key))})
            return Way({0: item(value, model, (*at, 0), said)})
        if isinstance(value, str | Mapping | BaseModel):
            return [item(value, model, (*at, 0), said)]
        return value

    def _union(self, value: Any, kind: type[Component], at: Path_, said: Path_) -> Any:
        if isinstance(value, str):
            self._note(at, said)
            names = [name.strip() for name in value.split("+")]
            return [self.component(name, kind, (*at, index), said) for index, name in enumerate(names)]
        return self._items(value, self._part, kind, at, said)

    # --- components ---

    def component(self, value: Any, kind: type[Component], at: Path_, said: Path_) -> Any:
        """Return one component: its name alone, its name with options, or a mapping with a ``type``."""
        if isinstance(value, str):
            self._note(at, said)
            return {"type": self.plain(value, (*at, "type"), said)}
        # An override goes through the options of a component, and names none.
        if not isinstance(value, Mapping) or isinstance(value, Way) or "type" in value or len(value) != 1:
            return self._options(value, kind, at, said)
        (name, options), *_ = value.items()
        component = self.offers.get(kind, {}).get(name)
        if component is None or not (isinstance(options, Mapping) or component.shorthand):
            return self.plain(value, at, said)
        self._note(at, said)
        self._note((*at, "type"), (*said, name), renamed=True)
        if isinstance(options, Mapping):
            return {"type": name, **self._renamed(options, component, at, (*said, name))}
        short = str(component.shorthand)
        return {"type": name, short: self.plain(options, (*at, short), (*said, name), renamed=True)}

    def _renamed(
        self, options: Mapping[str, Any], component: type[Component], at: Path_, said: Path_
    ) -> dict[str, Any]:
        """Return the options of ``{lora: {r: 8}}``: in messages, the place of ``r`` is ``adapter.r``."""
        return {
            key: self.plain(item, (*at, key), (*said, key), renamed=True)
            if (field := _field_of_parts(component, key)) is None
            else self._within(item, field, (*at, key), (*said, key))
            for key, item in options.items()
        }

    def _options(self, value: Any, kind: type[Component], at: Path_, said: Path_) -> Any:
        """Return a component with a ``type``, in whose options others may stand in a short form."""
        classes = self.offers.get(kind, {})
        name = value.get("type") if isinstance(value, Mapping) else None
        component = classes.ready(name) if isinstance(classes, Classes) else classes.get(str(name))
        if component is None or not any(_field_of_parts(component, key) for key in value):
            return self.plain(value, at, said)
        self._note(at, said)
        return _like(value, {key: self._option(item, component, key, at, said) for key, item in value.items()})

    def _option(self, item: Any, component: type[Component] | None, key: str, at: Path_, said: Path_) -> Any:
        """Return one option of a component, written below `said`."""
        field = _field_of_parts(component, key) if component is not None else None
        if field is None:
            return self.plain(item, (*at, key), (*said, key))
        return self._within(item, field, (*at, key), (*said, key))

    def _within(self, value: Any, field: FieldInfo, at: Path_, said: Path_) -> Any:
        """Return the value of an option that holds components: one, or a list of them."""
        (kind, *_) = models_in(field.annotation)
        if isinstance(value, list):
            self._note(at, said)
            return [self._within(item, field, (*at, index), (*said, index)) for index, item in enumerate(value)]
        option = next((key for key in SOURCE_OF if isinstance(value, Mapping) and key in value), None)
        if (
            issubclass(kind, DatasetSource)
            and option is not None
            and not isinstance(value, Way)
            and "type" not in value
        ):
            self._note(at, said)
            self._note((*at, "type"), (*said, option))
            return {"type": SOURCE_OF[option], **self.plain(value, at, said)}
        return self._part(value, kind, at, said)

    # --- a source, whose options stand beside those of its section ---

    def _source_section(self, value: Mapping[Any, Any], at: Path_, said: Path_) -> dict[Any, Any]:
        own, options = dict(value), {}
        if not isinstance(value.get("source"), Mapping | BaseModel):
            own = {key: item for key, item in value.items() if key in SourceSection.model_fields and key != "source"}
            options = {key: item for key, item in value.items() if key not in SourceSection.model_fields}
        spelled = self._fields(own, SourceSection, at, said)
        if options or value.keys() - own.keys():
            source = self._source(value, options, (*at, "source"), said)
            spelled["source"] = _like(value, source) if options else source
        return _like(value, spelled)

    def _source(self, section: Mapping[Any, Any], options: Mapping[Any, Any], at: Path_, said: Path_) -> dict[str, Any]:
        """Return the source of a section: what its name is, as far as that is said, and `options`."""
        named: dict[str, Any] = {}
        keys = ["source"] if "source" in section else [key for key in SOURCE_OF if key in options]
        if len(keys) == 1:
            named["type"] = SOURCE_OF.get(keys[0]) or section["source"]
            self._note(at, (*said, keys[0]))
            self._note((*at, "type"), (*said, keys[0]))
        # What is missing among its options is missing beside those of the section.
        self.places[at] = self.layer.places.get(said, said)
        classes = self.offers.get(DatasetSource, {})
        component = classes.get(str(named["type"])) if "type" in named else None
        return {**named, **{key: self._option(item, component, key, at, said) for key, item in options.items()}}

    # --- everything else ---

    def plain(self, value: Any, at: Path_, said: Path_, *, renamed: bool = False) -> Any:
        """Return a copy of what has no short forms, and of what is not a form at all."""
        self._note(at, said, renamed=renamed)
        if isinstance(value, Mapping):
            items = {key: self.plain(item, (*at, key), (*said, key), renamed=renamed) for key, item in value.items()}
            return _like(value, items)
        if isinstance(value, list):
            return [self.plain(item, (*at, index), (*said, index), renamed=renamed) for index, item in enumerate(value)]
        return value

    def _note(self, at: Path_, said: Path_, *, renamed: bool = False) -> None:
        """Note where the value comes from, and where it was written unless it is to be called by its new name."""
        # In `adapter: {lora: {r: 8}}` the rank is at adapter.lora.r; messages call it adapter.r, as in the long form.
        if said in self.layer.origins:
            self.origins[at] = self.layer.origins[said]
        place = self.layer.places.get(said, said)
        if place != at and not renamed:
            self.places[at] = place


def _field_of_parts(component: type[Component], key: str) -> FieldInfo | None:
    """Return the option `key` of a component, if it holds components."""
    fields = component.model_fields
    field = fields.get(key) or next((field for field in fields.values() if field.alias == key), None)
    inner = models_in(field.annotation) if field is not None else ()
    return field if any(issubclass(model, Component) for model in inner) else None


def _like(value: Any, spelled: dict[Any, Any]) -> dict[Any, Any]:
    """Return `spelled` as what `value` is: the way of an override, or a mapping of its own."""
    return Way(spelled) if isinstance(value, Way) else spelled
