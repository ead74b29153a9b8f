"""Find transformers' quantization methods in its source, and make the component of one of them."""

from __future__ import annotations

import ast
from functools import cache, partial
from typing import Any, Literal

from pydantic import create_model

from sftplug import Deferred, LibrarySource
from sftplug_transformers.quantization import LibraryQuantization

REGISTRY = LibrarySource("transformers/quantizers/auto.py")
CONFIGS = LibrarySource("transformers/utils/quantization_config.py")

_FIXED = ("load_in_4bit", "load_in_8bit")
"""bitsandbytes' two methods share a class of options, and these tell them apart: the name of the method sets one."""


def quantization_methods() -> list[Deferred]:
    """Return an offer for every method that has both a class of options and a quantizer."""
    configs, quantizers = _mapping("AUTO_QUANTIZATION_CONFIG_MAPPING"), _mapping("AUTO_QUANTIZER_MAPPING")
    shared = {config for config in configs.values() if list(configs.values()).count(config) > 1}
    return [
        Deferred(method, partial(make_component, method, config, config in shared), "transformers")
        for method, config in sorted(configs.items())
        if method in quantizers
    ]


def _mapping(name: str) -> dict[str, str]:
    """Return the registry's mapping from method to class name."""
    for _, statement in REGISTRY.statements(f"{name} ="):
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            items = zip(statement.value.keys, statement.value.values, strict=True)
            return {
                str(key.value): value.id
                for key, value in items
                if isinstance(key, ast.Constant) and isinstance(value, ast.Name)
            }
    return {}


@cache
def make_component(method: str, config: str, shared: bool) -> type[LibraryQuantization]:
    """Return the component class of one method: a field for each option of its configuration class.

    `shared`: several methods have that class.
    """
    name: Any = method
    taken = frozenset({*dir(LibraryQuantization), *LibraryQuantization.model_fields})
    leave_out = frozenset({"quant_method", *_FIXED})
    fields: dict[str, Any] = CONFIGS.model_fields(config, leave_out=leave_out, taken=taken)
    fields["type"] = (Literal[name], name)
    summary = CONFIGS.summary(config) or f"transformers' quantization method `{method}`."
    component = create_model(
        config.removesuffix("Config"), __base__=LibraryQuantization, __module__=__name__, __doc__=summary, **fields
    )
    component.fixed = _fixed(method, config, shared)
    component.config = partial(CONFIGS.import_class, config)
    component.remake = partial(_remade, method, config, shared)
    component.calibrated, component.untrainable = _about(method)
    required = [field.alias or name for name, field in component.model_fields.items() if field.is_required()]
    component.shorthand = required[0] if len(required) == 1 else None
    return component


def _remade(method: str, config: str, shared: bool, options: dict[str, Any]) -> LibraryQuantization:
    return make_component(method, config, shared)(**options)


def _fixed(method: str, config: str, shared: bool) -> dict[str, Any]:
    """Return the arguments that make a shared class of options this method's."""
    own = next((option for option in _FIXED if method.endswith(option.removeprefix("load_in"))), None)
    if own is not None and own in CONFIGS.options(config):
        return {own: True}
    return {"quant_method": method} if shared else {}


def _about(method: str) -> tuple[bool, bool]:
    """Return whether the method's quantizer reads only checkpoints that are quantized already, and never trains."""
    quantizer = _mapping("AUTO_QUANTIZER_MAPPING")[method]
    modules = [
        statement.module
        for _, statement in REGISTRY.statements("from .quantizer_")
        if isinstance(statement, ast.ImportFrom) and any(alias.name == quantizer for alias in statement.names)
    ]
    source = LibrarySource(*(f"transformers/quantizers/{module}.py" for module in modules))
    body = source.class_node(quantizer).body if modules else []
    calibrated = "requires_calibration = True" in [ast.unparse(item) for item in body if isinstance(item, ast.Assign)]
    trains = next((item for item in body if isinstance(item, ast.FunctionDef) and item.name == "is_trainable"), None)
    returned = [ast.unparse(item) for item in ast.walk(trains) if isinstance(item, ast.Return)] if trains else []
    return calibrated, returned == ["return False"]
