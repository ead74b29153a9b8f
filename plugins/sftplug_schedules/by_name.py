"""Find transformers' schedules in its source, and make the component of one of them."""

from __future__ import annotations

import ast
from functools import cache, partial
from typing import Any, Literal

from pydantic import create_model

from sftplug import Deferred, Field, LibrarySource
from sftplug_schedules.schedule import EITHER, LibrarySchedule

NAMES = LibrarySource("transformers/trainer_utils.py")
FUNCTIONS = LibrarySource("transformers/optimization.py")
OF_THE_RUN = frozenset({"num_warmup_steps", "num_training_steps", "last_epoch"})
"""Parameters that no recipe decides here."""


def schedules() -> list[Deferred]:
    """Return an offer for every schedule that has a name and a function."""
    return [
        Deferred(name, partial(make_component, name, function), "transformers")
        for name, function in sorted(_functions().items())
    ]


def _functions() -> dict[str, str]:
    """Return the name of each schedule -> that of its function."""
    names = NAMES.members("SchedulerType")
    for _, statement in FUNCTIONS.statements("TYPE_TO_SCHEDULER_FUNCTION ="):
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            items = zip(statement.value.keys, statement.value.values, strict=True)
            return {
                names[key.attr]: value.id
                for key, value in items
                if isinstance(key, ast.Attribute) and isinstance(value, ast.Name) and key.attr in names
            }
    return {}


@cache
def make_component(name: str, function: str) -> type[LibrarySchedule]:
    """Return the component class of one schedule: a field for each option of its function."""
    given: Any = name
    parameters = FUNCTIONS.options(function)
    taken = frozenset({*dir(LibrarySchedule), *LibrarySchedule.model_fields})
    fields: dict[str, Any] = FUNCTIONS.model_fields(function, leave_out=OF_THE_RUN, taken=taken)
    if {*EITHER} <= fields.keys():
        kind, field = fields[EITHER[1]]
        # Without one of the two it is refused.
        fields[EITHER[1]] = kind, Field(field.default, description=field.description, examples=[0.1])
    fields["type"] = (Literal[given], given)
    summary = FUNCTIONS.summary(function) or f"transformers' schedule `{name}`."
    title = "".join(part.capitalize() for part in name.split("_"))
    component = create_model(title, __base__=LibrarySchedule, __module__=__name__, __doc__=summary, **fields)
    component.function = partial(FUNCTIONS.import_class, function)
    component.remake = partial(_remade, name, function)
    component.warms_up = "num_warmup_steps" in parameters
    component.lengths = frozenset(OF_THE_RUN & parameters.keys())
    required = [field.alias or key for key, field in component.model_fields.items() if field.is_required()]
    component.shorthand = required[0] if len(required) == 1 else None
    return component


def _remade(name: str, function: str, options: dict[str, Any]) -> LibrarySchedule:
    return make_component(name, function)(**options)
