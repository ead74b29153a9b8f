"""What every kind of component is: its options, under a name."""

from __future__ import annotations

import builtins
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from pydantic import ConfigDict, GetCoreSchemaHandler, PrivateAttr, ValidationError
from pydantic_core import CoreSchema, core_schema

from sftplug.errors import PluginError
from sftplug.util.strict_model import StrictModel

if TYPE_CHECKING:
    from sftplug.plugin.components.sections import RecipeSection
    from sftplug.recipe.model import Recipe

S = TypeVar("S", bound="RecipeSection")


class Component(StrictModel, ABC):
    """Base of every kind. Subclass a kind, not this.

    An option may hold a component of a kind, ``base: DatasetSource``: a recipe names one there as everywhere else, and
    all that holds for components holds for it.
    """

    # A plugin's default of the wrong type is found before it does harm.
    model_config = ConfigDict(validate_default=True)

    type: str
    """The name that recipes use; a subclass narrows it to a ``Literal`` with a default."""

    shorthand: ClassVar[str | None] = None
    """The option that ``{name: value}`` sets in a recipe, so that ``roles: [user]`` can be written."""

    variants: ClassVar[Mapping[str, str]] = {}
    """Names under which people know it with certain options -> these as a recipe has them: ``{"dora": "dora: true"}``.
    They are no names of their own: a recipe that uses one is told what to write."""

    _sections: tuple[RecipeSection, ...] = PrivateAttr(())

    def section(self, kind: builtins.type[S]) -> S:
        """Return the recipe's section of that class, which the plugin of this component owns.

        Outside of a recipe, as in a test, it has its defaults. Raises PluginError where an option has none, and for a
        section of another plugin.
        """
        return section_of(kind, self._sections)

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Yield a sentence for everything in `recipe` that does not go together with this component.

        Called before anything is downloaded or loaded; must be quick and must not import a heavy library.
        """
        return ()

    @classmethod
    def upgrade(cls, options: dict[str, Any], from_version: str) -> dict[str, Any]:
        """Return `options` of an earlier version of this class as it takes them today; by default, as they are.

        Asked before options are validated, each time they are read: of a recipe with `from_version` ``""``, for a
        recipe does not say which version it was written for; of the record of a run with the version of the
        distribution that offered the class then, which is ``""`` for a plugin file. `options` are those that are set,
        as YAML holds them and without ``type``, in a copy that may be changed. Options of today must come through as
        they are, those that an upgrade has made too: what gets another meaning gets another name. That something was
        upgraded is said to the user. `sftplug.testing.check_upgrade` tries it.
        """
        return options

    def __eq__(self, other: object) -> bool:
        """Whether both are the same component with the same options, whatever recipes they stand in."""
        return type(self) is type(other) and isinstance(other, Component) and self._state() == other._state()

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the options, and what the class keeps in private attributes of its own."""
        options = {name: vars(self).get(name) for name in builtins.type(self).model_fields}
        return options, {name: kept for name, kept in (self.__pydantic_private__ or {}).items() if name != "_sections"}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Where an option is annotated with a kind, take a component of that kind."""
        # An option of the kind `Masking` takes any masking; one of the class `Assistant` takes that alone, as pydantic
        # has it.
        if Component not in cls.__bases__:
            return super().__get_pydantic_core_schema__(source, handler)
        dump = core_schema.plain_serializer_function_ser_schema(_dumped_part, info_arg=True)
        return core_schema.with_info_plain_validator_function(partial(_part, cls), serialization=dump)


def section_of(kind: type[S], sections: Iterable[RecipeSection]) -> S:
    """Return the one of `sections` that is of a class, else that class with its defaults. Raises PluginError."""
    # By its name, which is one section's only: a plugin's file that a test has imported too is two classes.
    name = kind.model_fields["type"].default
    found = next((section for section in sections if section.type == name), None)
    try:
        return cast("S", found) if found is not None else kind.model_validate({})
    except ValidationError as error:
        raise PluginError(
            f"the section `{name}` is asked for where there is none, and it cannot be made of defaults: "
            f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}. Only the components of the plugin that owns "
            f"it, and hooks in recipes that use that plugin, have it."
        ) from error


def give_sections(component: Component, sections: Iterable[RecipeSection]) -> None:
    """Let a component read these sections of its recipe."""
    component._sections = tuple(sections)


def sections_given(component: Component) -> tuple[RecipeSection, ...]:
    """Return the sections that a component can read."""
    return component._sections


PARTS = "parts"
"""Key of the validation's context under which a recipe says what makes a component: (kind, what is written, context) ->
component."""


def _part(kind: type[Component], value: Any, info: core_schema.ValidationInfo) -> Component:
    """Return the component that an option holds."""
    if isinstance(value, kind):
        return value
    written = {"type": value} if isinstance(value, str) else value
    if info.context is not None and PARTS in info.context:
        made: Component = info.context[PARTS](kind, written, info.context)
        return made
    # Outside of a recipe, the classes of this program are there to be named.
    name = written.get("type") if isinstance(written, Mapping) else None
    known = [cls for cls in _subclasses(kind) if cls.model_fields["type"].default == name]
    if not known:
        raise ValueError(f"must be a {kind.__name__}, or a mapping with the `type` of one that is imported")
    # The newest: in a notebook, a class is made again each time its cell runs.
    return known[-1].model_validate(written)


def _subclasses(cls: type[Component]) -> Iterator[type[Component]]:
    for inner in cls.__subclasses__():
        yield inner
        yield from _subclasses(inner)


def _dumped_part(part: Component, info: core_schema.SerializationInfo) -> dict[str, Any]:
    options = part.model_dump(mode=info.mode, by_alias=info.by_alias, exclude_unset=info.exclude_unset)
    return {"type": part.type, **options}


def parts_of(component: Component) -> Iterator[tuple[tuple[str | int, ...], Component]]:
    """Yield (path, component) for every component that the options of `component` hold, and those in them."""
    for name, field in type(component).model_fields.items():
        # Of the dictionary, for to read a deprecated option as an attribute warns.
        yield from _parts_in((field.alias or name,), vars(component).get(name))


def _parts_in(path: tuple[str | int, ...], value: Any) -> Iterator[tuple[tuple[str | int, ...], Component]]:
    if isinstance(value, Component):
        yield path, value
        yield from (((*path, *below), part) for below, part in parts_of(value))
    elif isinstance(value, tuple | list | Mapping):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _parts_in((*path, key), item)


@dataclass(frozen=True, slots=True)
class Deferred:
    """A component class that is made when a recipe names it.

    For a plugin that offers everything of a large library: to list the names must cost nothing, and only the one that
    is chosen need be made.
    """

    name: str
    """The name that recipes use."""
    make: Callable[[], type[Component]]
    """Returns the class; called at most once in a process."""
    library: str
    """The library whose it is; what it offers is known only where it is installed."""
