"""The laws of every component, whatever its kind: it is its options."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sftplug.plugin.components import Component
from sftplug.plugin.validation import problem_of_class
from sftplug.recipe.yaml import parse_yaml, write_yaml
from sftplug.testing.law import Breach, check, demand, make, shown


def check_component(component: type[Component], /, **options: Any) -> None:
    """Hold a component to the laws that hold for every kind. Raises LawBroken."""
    made = make(component, options)
    check(made, LAWS, made)


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
    for name, field in own.model_fields.items():
        demand(
            name == "type" or bool(field.description),
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


LAWS = (is_named, is_described, is_frozen, refuses_unknown_options, survives_yaml, survives_pickling)
