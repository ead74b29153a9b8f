"""Find PEFT's adapter types in its source, and make the component of one of them."""

from __future__ import annotations

import ast
from functools import cache, partial
from typing import Any, Literal

from pydantic import create_model

from sftplug import Deferred, LibrarySource
from sftplug_peft.adapter import PeftAdapter

REGISTRATIONS = LibrarySource("peft/tuners/*/__init__.py")
CONFIGS = LibrarySource("peft/config.py", "peft/utils/peft_types.py", "peft/tuners/*.py", "peft/tuners/*/config.py")

_OWN_NAMES = frozenset({"full", "freeze", "lora", "qlora"})
"""What sftplug's plugin `adapters` offers itself; PEFT's `lora`, with every option there is, is `peft_lora`."""
_BASE = "PeftConfig"
"""Its fields describe a saved adapter (library version, base model, task): PEFT and sftplug fill them in."""


def adapter_types() -> list[Deferred]:
    """Return an offer for every ``register_peft_method(name=…, config_cls=…)`` in PEFT's tuners."""
    found = {}
    for _, statement in REGISTRATIONS.statements("register_peft_method("):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            given = {keyword.arg: keyword.value for keyword in statement.value.keywords}
            name, config = given.get("name"), given.get("config_cls")
            if isinstance(name, ast.Constant) and isinstance(config, ast.Name):
                found[str(name.value)] = config.id
    return [
        Deferred(component_name(peft_type), partial(make_component, peft_type, config), "peft")
        for peft_type, config in sorted(found.items())
    ]


def component_name(peft_type: str) -> str:
    """Return the name that recipes use for a type of PEFT's."""
    return f"peft_{peft_type}" if peft_type in _OWN_NAMES else peft_type


@cache
def make_component(peft_type: str, config: str) -> type[PeftAdapter]:
    """Return the component class of one type: a field for each option of its configuration class."""
    name: Any = component_name(peft_type)
    fields: dict[str, Any] = CONFIGS.model_fields(
        config, leave_out=frozenset(CONFIGS.options(_BASE)), taken=frozenset(dir(PeftAdapter))
    )
    fields["type"] = (Literal[name], name)
    summary = CONFIGS.summary(config) or f"PEFT's adapter type `{peft_type}`."
    component = create_model(
        config.removesuffix("Config"), __base__=PeftAdapter, __module__=__name__, __doc__=summary, **fields
    )
    component.peft_type = peft_type
    component.config = partial(CONFIGS.import_class, config)
    component.remake = partial(_remade, peft_type, config)
    return component


def _remade(peft_type: str, config: str, options: dict[str, Any], chosen: dict[str, Any]) -> PeftAdapter:
    adapter = make_component(peft_type, config)(**options)
    adapter._chosen.update(chosen)
    return adapter
