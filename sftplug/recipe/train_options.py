"""The options of the ``train`` section: `trl.SFTConfig`'s own fields, read without importing it.

Importing `SFTConfig` costs six seconds (torch, accelerate, bitsandbytes); a typing mistake should be answered at
once. So names, types and choices are read from the source of the installed libraries. `SFTConfig` itself still has
the last word when the trainer is made.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sftplug.errors import did_you_mean

OWNED: Mapping[str, str] = {
    "output_dir": "output",
    "max_length": "data.max_length",
    "truncation_mode": "data.too_long",
    "packing": "data.packing",
    "packing_strategy": "data.packing",
    "padding_free": "data.packing",
    "eval_packing": "data.packing",
    "dataset_text_field": "data.train[].format",
    "dataset_kwargs": "data",
    "dataset_num_proc": "data",
    "completion_only_loss": "masking",
    "assistant_only_loss": "masking",
    "chat_template_path": "chat_template",
    "model_init_kwargs": "model and quantization",
    "trust_remote_code": "model.trust_remote_code",
    "eos_token": "chat_template",
    "pad_token": "model",
    "remove_unused_columns": "data",
    "label_names": "masking",
    "do_train": "data.train",
    "do_eval": "data.eval",
    "loss_type": "masking",
    "use_liger_kernel": "masking",
    "label_smoothing_factor": "masking",
}
"""Fields that sftplug sets itself, and the section of the recipe that decides them."""

_SOURCES = (
    ("trl", "trainer/sft_config.py"),
    ("trl", "trainer/base_config.py"),
    ("transformers", "training_args.py"),
    ("transformers", "trainer_utils.py"),
    ("transformers", "debug_utils.py"),
)
_CONFIG_CLASSES = ("SFTConfig", "_BaseConfig", "TrainingArguments")


def problems_in_train(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (option, sentence) for each option that `SFTConfig` lacks, that sftplug owns, or whose type is wrong."""
    fields = train_fields()
    for name, value in options.items():
        if name in OWNED:
            yield name, f"is set by sftplug: use the recipe's section `{OWNED[name]}`."
        elif name not in fields:
            known = fields.keys() - OWNED.keys()
            yield name, f"unknown option: trl.SFTConfig has no field of that name.{did_you_mean(name, known)}"
        elif (problem := _type_problem(name, fields[name], value)) is not None:
            yield name, problem


def _type_problem(name: str, annotation: str, value: Any) -> str | None:
    try:
        _adapter(annotation).validate_python(value)
    except ValidationError:
        wanted, known = _readable(annotation)
        return f"must be {wanted}, not {value!r}.{did_you_mean(value, known)}"
    return None


@cache
def train_fields() -> dict[str, str]:
    """Return name -> annotation (source text) of every field of the installed `trl.SFTConfig`."""
    classes = {node.name: node for tree in _trees() for node in tree.body if isinstance(node, ast.ClassDef)}
    fields: dict[str, str] = {}
    for name in reversed(_CONFIG_CLASSES):
        for statement in classes[name].body if name in classes else ():
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                fields[statement.target.id] = ast.unparse(statement.annotation)
    return {name: annotation for name, annotation in fields.items() if not annotation.startswith("ClassVar")}


def train_schema() -> dict[str, Any]:
    """Return the JSON Schema of the ``train`` section: every field but those that sftplug owns."""
    described = _descriptions()
    properties = {
        name: {**_adapter(annotation).json_schema(), **described.get(name, {})}
        for name, annotation in train_fields().items()
        if name not in OWNED
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


_ENTRY = re.compile(r"^( +)(\w+) ?\(.*\):[ ]*\n((?:\1 +.*\n|[ ]*\n)+)", re.MULTILINE)
"""A parameter in the docstring of a configuration class: name, type, and an indented text."""


def _descriptions() -> dict[str, dict[str, str]]:
    """Return what the libraries' own docstrings say of each field."""
    classes = [node for tree in _trees() for node in tree.body if isinstance(node, ast.ClassDef)]
    texts = [ast.get_docstring(node, clean=True) or "" for node in classes if node.name in _CONFIG_CLASSES]
    found = [entry for text in reversed(texts) for entry in _ENTRY.finditer(f"{text}\n")]
    return {entry[2]: {"description": " ".join(entry[3].split())} for entry in found}


@cache
def _trees() -> tuple[ast.Module, ...]:
    files = [_package_folder(package) / file for package, file in _SOURCES]
    return tuple(ast.parse(file.read_text(encoding="utf-8")) for file in files if file.is_file())


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds, does not import, a top-level package
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.origin).parent


@cache
def _enums() -> dict[str, tuple[str, ...]]:
    """Return the string values of every enumeration that the sources define, by class name."""
    found = {}
    for node in (node for tree in _trees() for node in tree.body if isinstance(node, ast.ClassDef)):
        if any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases):
            values = [item.value for item in node.body if isinstance(item, ast.Assign)]
            found[node.name] = tuple(
                v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)
            )
    return found


class _Names(dict[str, Any]):
    """What an annotation may mention; a class that is not known here takes anything."""

    def __missing__(self, name: str) -> Any:
        values = _enums().get(name)
        return Literal[values] if values else Any


@cache
def _adapter(annotation: str) -> TypeAdapter[Any]:
    names = _Names(bool=bool, int=int, float=float, str=str, dict=dict, list=list, Any=Any, Literal=Literal)
    # The text is an annotation in the installed library's own source, not a user's.
    kind = eval(_without_str_beside_enum(annotation), {"__builtins__": {}}, names)
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def _without_str_beside_enum(annotation: str) -> str:
    """``SchedulerType | str`` accepts any string as far as typing goes, but only the enumeration's values work."""
    members = annotation.split(" | ")
    has_enum = any(member in _enums() for member in members)
    return " | ".join(member for member in members if not (has_enum and member == "str"))


def _readable(annotation: str) -> tuple[str, tuple[str, ...]]:
    """Return how to say the type to a user, and the values it is limited to."""
    values = [value for member in annotation.split(" | ") for value in _enums().get(member, ())]
    if values:
        return f"one of {', '.join(values)}", tuple(values)
    return annotation.replace(" | None", " or null").replace(" | ", " or "), ()
