"""Describe a component to a user: its options, and a section of a recipe that uses it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from sftplug.plugin.components import (
    Adapter,
    Callback,
    ChatTemplate,
    Component,
    DatasetFormat,
    DatasetSource,
    Exporter,
    Head,
    LengthPolicy,
    Loss,
    Masking,
    Metric,
    ModelBuilder,
    ModelPatch,
    Optimizer,
    Policy,
    Quantization,
    RecipeSection,
    RowProcessor,
    Schedule,
)
from sftplug.plugin.errors import owner_of
from sftplug.plugin.kinds import NOUNS
from sftplug.recipe.yaml import write_yaml
from sftplug.util.field_docs import field_docs

ILLUSTRATED = 3
"""So many options with a default are shown in an example, beside those that must be given."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a component."""

    name: str
    type: str
    default: str
    description: str


def options_of(component: type[Component]) -> list[Option]:
    """Return the options of `component` in the order of its class, in the words of a recipe."""
    fields = [(name, field.alias or name, field) for name, field in component.model_fields.items() if name != "type"]
    docs = field_docs(component)
    return [
        Option(alias, _type_of(field), _default_of(field), _description_of(field, docs.get(name, "")))
        for name, alias, field in fields
    ]


def _description_of(field: FieldInfo, documented: str) -> str:
    words = f"{field.description or documented} {field.deprecation_message or ''}"
    return " ".join(words.split())


def _type_of(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for kind, sign, name in _LIMITS
        if isinstance(item, kind)
    ]
    return ", ".join([words_for(field.annotation), *limits])


_LIMITS = ((Gt, ">", "gt"), (Ge, "≥", "ge"), (Lt, "<", "lt"), (Le, "≤", "le"))
_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
    dict: "mapping",
    list: "list",
    tuple: "list",
    Any: "anything",
}


def words_for(annotation: Any) -> str:
    """Return what to call a type to someone who writes YAML: ``list of text or null``."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words_for, inner)))
    if origin is typing.Annotated:
        return words_for(inner[0])
    if origin in (list, tuple, set, frozenset):
        items = [item for item in inner if item is not Ellipsis]
        return f"list of {' or '.join(dict.fromkeys(map(words_for, items)))}"
    if inspect.isclass(annotation) and annotation in NOUNS:
        return NOUNS[annotation]
    return _WORDS.get(origin) or str(getattr(annotation, "__name__", annotation))


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return in_one_line(
        to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}), fallback=str)
    )


def in_one_line(value: Any) -> str:
    """Return `value` as one line of YAML."""
    text = write_yaml(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


# --- an example -------------------------------------------------------------------------------------------------------


def example_of(component: type[Component]) -> str:
    """Return a section of a recipe, as YAML, that uses `component`; laid over a whole recipe it is valid."""
    written = _written(component)
    return write_yaml(_section(component, written))


def _written(component: type[Component]) -> Any:
    """Return the component as a recipe writes it: what must be given, and a few options with their defaults."""
    name = component.model_fields["type"].default
    fields = {field.alias or name: field for name, field in component.model_fields.items() if name != "type"}
    given = {key: _example_value(key, field) for key, field in fields.items() if field.is_required() or field.examples}
    plain = {key: field.default for key, field in fields.items() if isinstance(field.default, str | int | float)}
    given |= dict(list(plain.items())[:ILLUSTRATED])
    return {"type": name, **given} if given else name


def _section(component: type[Component], written: Any) -> dict[str, Any]:
    return next(section(component, written) for kind, section in _SECTIONS.items() if issubclass(component, kind))


def _source(component: type[DatasetSource], written: Any) -> dict[str, Any]:
    options = {"source": written} if isinstance(written, str) else {"source": written.pop("type"), **written}
    return {"data": {"train": [{**options, "format": "messages"}]}}


def _adapter(component: type[Adapter], written: Any) -> dict[str, Any]:
    return {"quantization": component.default_quantization or "bf16", "adapter": written}


def _quantization(component: type[Quantization], written: Any) -> dict[str, Any]:
    return {"quantization": written, **({} if component.trainable else {"adapter": "lora"})}


def _loss(component: type[Loss], written: Any) -> dict[str, Any]:
    return {"loss": written, **({"adapter": "lora"} if component.reads_base else {})}


def _head(component: type[Head], written: Any) -> dict[str, Any]:
    return {"loss": {"type": "cross_entropy", "head": written}}


def _optimizer(component: type[Optimizer], written: Any) -> dict[str, Any]:
    return {"optimizer": written, **({"schedule": "constant_with_warmup"} if component.constant_rate else {})}


def _schedule(component: type[Schedule], written: Any) -> dict[str, Any]:
    return {"schedule": written, **({} if component.warms_up else {"train": {"warmup_steps": 0}})}


def _own(component: type[RecipeSection], written: Any) -> dict[str, Any]:
    options = {} if isinstance(written, str) else {name: value for name, value in written.items() if name != "type"}
    return {"plugins": [owner_of(component)], component.model_fields["type"].default: options}


_SECTIONS: Mapping[type[Component], Callable[[Any, Any], dict[str, Any]]] = {
    DatasetSource: _source,
    RowProcessor: lambda _, written: {"data": {"train": [{"path": "rows.jsonl", "process": [written]}]}},
    DatasetFormat: lambda _, written: {"data": {"train": [{"path": "rows.jsonl", "format": written}]}},
    LengthPolicy: lambda _, written: {"data": {"max_length": 1024, "too_long": written}},
    Masking: lambda masking, written: {"masking": written if masking.selects else ["assistant", written]},
    ModelBuilder: lambda _, written: {"model": {"build": written}},
    Adapter: _adapter,
    Quantization: _quantization,
    ModelPatch: lambda _, written: {"patches": [written]},
    Loss: _loss,
    Head: _head,
    Optimizer: _optimizer,
    Schedule: _schedule,
    Callback: lambda _, written: {"callbacks": [written]},
    Exporter: lambda _, written: {"export": [written]},
    Metric: lambda _, written: {"evaluation": {"metrics": [written]}},
    ChatTemplate: lambda _, written: {"chat_template": written},
    Policy: lambda _, written: {"policies": [written]},
    RecipeSection: _own,
}
"""Kind -> the section of a recipe that uses a component of it, as it is written."""


_EXAMPLES: Mapping[Any, Any] = {
    DatasetSource: {"path": "rows.jsonl"},
    DatasetFormat: "messages",
    ChatTemplate: "tokenizer",
    Masking: "assistant",
    LengthPolicy: "drop",
    Adapter: "lora",
    Loss: "cross_entropy",
    Head: "full",
    Quantization: "bf16",
    RowProcessor: "dedupe",
}
"""Kind -> a component that needs nothing further, for an option that holds one."""


def _example_value(name: str, field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    return _value_of(name, field.annotation)


def _value_of(name: str, annotation: Any) -> Any:
    """Return some value of a type; the option's own name where it is text."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return inner[0]
    if origin in (list, tuple, set, frozenset) or annotation in (list, tuple):
        return [_value_of(name, inner[0])] if inner else [name]
    if inner and origin is not dict:
        return _value_of(name, inner[0])
    if inspect.isclass(annotation) and issubclass(annotation, Component):
        return _EXAMPLES.get(annotation, name)
    values: Iterable[tuple[Any, Any]] = ((bool, True), (int, 1), (float, 1.0), (dict, {}))
    kind = origin or annotation
    return next((value for of, value in values if inspect.isclass(kind) and issubclass(kind, of)), name)
