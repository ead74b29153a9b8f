"""The laws of every component, whatever its kind: it is its options."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sftplug.plugin.calls import upgraded
from sftplug.plugin.components import Component
from sftplug.plugin.validation import component_name, problem_of_class
from sftplug.recipe.yaml import parse_yaml, write_yaml
from sftplug.testing.law import Breach, check, demand, make, shown
from sftplug.testing.proofs import proving
from sftplug.util.field_docs import field_docs


@proving
def check_component(component: type[Component], /, **options: Any) -> None:
    """Hold a component to the laws that hold for every kind. Raises LawBroken."""
    made = make(component, options)
    check(made, LAWS, made)


@proving
def check_upgrade(
    component: type[Component],
    old: Mapping[str, Any],
    /,
    from_version: str = "",
    expected: Mapping[str, Any] | None = None,
) -> None:
    """Hold `upgrade` of a component to its laws, on the options that a version before today's took.

    `old` are these options, as a recipe has them and without ``type``; `from_version` is that version, and ``""`` that
    of a recipe, which does not know it. `expected` are the options of today that they stand for. Raises LawBroken.

        check_upgrade(Gain, {"gain": 3.0}, "1.0", expected={"factor": 3.0})
    """
    subject = Upgrade(component, old, from_version, expected)
    check(component, (upgrades_to_what_it_takes, upgrades_once, upgrades_to_the_same_meaning), subject)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Options of a version before today's, and what they are today."""

    component: type[Component]
    old: Mapping[str, Any]
    from_version: str
    expected: Mapping[str, Any] | None

    def again(self, options: Mapping[str, Any], from_version: str) -> dict[str, Any]:
        """Return what `upgrade` makes of options, as a run asks for it."""
        return upgraded(self.component, options, from_version)

    def made(self) -> Component:
        """Return the component of today."""
        return self.component.model_validate({"type": component_name(self.component), **self.new()})

    def new(self) -> dict[str, Any]:
        """Return what `upgrade` makes of the old options."""
        return self.again(self.old, self.from_version)


def upgrades_to_what_it_takes(upgrade: Upgrade) -> None:
    """What `upgrade` returns of earlier options is valid today."""
    try:
        upgrade.made()
    except ValidationError as error:
        raise Breach(
            f"{shown(upgrade.old)} became {shown(upgrade.new())}, which is refused: {error.errors()[0]['msg']} "
            f"({'.'.join(map(str, error.errors()[0]['loc']))})",
            "rename in `upgrade` what was renamed, and take out what is gone.",
        ) from error


def upgrades_once(upgrade: Upgrade) -> None:
    """What `upgrade` has made is of today: asked again, by the same version or by none, it changes nothing."""
    new = upgrade.new()
    for version in dict.fromkeys([upgrade.from_version, ""]):
        again = upgrade.again(new, version)
        demand(
            again == new,
            f"{shown(new)} became {shown(again)} when it was upgraded again from version {version!r}",
            "change an option only under its old name; what gets another meaning gets another name.",
        )


def upgrades_to_the_same_meaning(upgrade: Upgrade) -> None:
    """The options of today say what the earlier ones said."""
    if upgrade.expected is None:
        return
    meant = upgrade.component.model_validate({"type": component_name(upgrade.component), **upgrade.expected})
    demand(
        upgrade.made() == meant,
        f"{shown(upgrade.old)} became {shown(upgrade.made())}, and {shown(meant)} is expected",
        "carry the value of an option over to where it stands today.",
    )


def upgrades_nothing_of_today(component: Component) -> None:
    """Options of today come through `upgrade` as they are: it is asked each time they are read."""
    whole = component.model_dump(mode="json", by_alias=True)
    for options in (whole, component.model_dump(mode="json", by_alias=True, exclude_unset=True), {}):
        today = {name: value for name, value in options.items() if name != "type"}
        made = upgraded(type(component), today, "")
        demand(
            made == today,
            f"{shown(today)} became {shown(made)}",
            "change an option only under a name that it has no more, and add none.",
        )


def is_named(component: Component) -> None:
    """A component has a name that a recipe can write: the default of its ``type``."""
    problem = problem_of_class(type(component))
    demand(problem is None, f"{type(component).__name__} {problem}", "write `type: Literal['my_name'] = 'my_name'`.")


def is_described(component: Component) -> None:
    """The class and every option say what they are: ``sftplug plugins show`` and the schema print it."""
    own = type(component)
    demand(
        bool(own.__doc__) and own.__doc__ != own.__mro__[1].__doc__,
        f"the class {own.__name__} has no docstring of its own",
        "write one sentence under the class line.",
    )
    docs = field_docs(own)
    for name, field in own.model_fields.items():
        demand(
            name == "type" or bool(field.description or docs.get(name)),
            f"the option '{name}' is not described",
            f"write a docstring under `{name}: …`; in a notebook, where Python finds none, `Field(…, description=…)`.",
        )


def is_frozen(component: Component) -> None:
    """A component cannot be changed once it is made: two parts of a run may share it."""
    try:
        component.type = component.type
    except ValidationError:
        return
    raise Breach("an option could be assigned to", "leave `frozen=True` of the kind's model_config as it is.")


def refuses_unknown_options(component: Component) -> None:
    """An option that it does not have is an error, for it is a typing error of the recipe's."""
    try:
        type(component)(**{**_given(component), "no_such_option": 1})
    except ValidationError:
        return
    raise Breach("`no_such_option: 1` was accepted", "leave `extra='forbid'` of the kind's model_config as it is.")


def survives_yaml(component: Component) -> None:
    """Written to YAML and read again, the options are the same: the run directory holds them so."""
    text = write_yaml(component.model_dump(mode="json", by_alias=True))
    again = type(component).model_validate(parse_yaml(text, name="component", base=Path()).data)
    demand(
        again == component,
        f"{shown(component)} was written as {shown(text)} and read as {shown(again)}",
        "use types that JSON has for options, and let validators accept what they return.",
    )


def survives_pickling(component: Component) -> None:
    """A pickled copy is equal: worker processes get one."""
    again = pickle.loads(pickle.dumps(component))
    demand(
        again == component,
        f"{shown(component)} was pickled, and came back as {shown(again)}",
        "keep state in options alone, and define the class at the top level of a module.",
    )


def _given(component: Component) -> dict[str, Any]:
    # Of the dictionary, for to read a deprecated option as an attribute warns.
    return {name: vars(component)[name] for name in component.model_fields_set | {"type"}}


LAWS = (
    is_named,
    is_described,
    is_frozen,
    refuses_unknown_options,
    survives_yaml,
    survives_pickling,
    upgrades_nothing_of_today,
)
