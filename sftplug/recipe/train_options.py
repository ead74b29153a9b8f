"""The options of the ``train`` section: `trl.SFTConfig`'s own fields, read without importing it.

Importing `SFTConfig` costs six seconds (torch, accelerate, bitsandbytes); a typing mistake should be answered at
once. So names, types and choices are read from the source of the installed libraries. `SFTConfig` itself still has
the last word when the trainer is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sftplug.errors import did_you_mean
from sftplug.libraries.options import LibraryOption, LibrarySource
from sftplug.recipe.deepspeed import leaks_of_deepspeed
from sftplug.recipe.train_table import REFUSED, is_known

_SOURCE = LibrarySource(
    "trl/trainer/sft_config.py",
    "trl/trainer/base_config.py",
    "transformers/training_args.py",
    "transformers/trainer_utils.py",
    "transformers/debug_utils.py",
)


def problems_in_train(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (option, sentence) for each option that `SFTConfig` lacks, that is refused, or whose type is wrong."""
    fields = train_fields()
    for name, value in options.items():
        if name in REFUSED and REFUSED[name].of(value):
            yield name, str(REFUSED[name]).strip()
        elif name not in fields:
            known = {field for field in fields if is_offered(field)}
            yield name, f"unknown option: trl.SFTConfig has no field of that name.{did_you_mean(name, known)}"
        elif (problem := _SOURCE.problem(fields[name], value)) is not None:
            yield name, problem
        elif isinstance(value, float) and not math.isfinite(value) and not (name == "max_grad_norm" and value > 0):
            yield name, f"must be a finite number, not {value}."
        elif name in _FILES and isinstance(value, str) and (fault := _fault_of_file(Path(value))):
            yield name, fault
        elif name == "deepspeed":
            yield from ((name, leak) for leak in leaks_of_deepspeed(value))


def is_train_option(name: str) -> bool:
    """Whether `SFTConfig` has a field of that name which recipes may set."""
    return name in train_fields() and is_offered(name)


_FILES = ("deepspeed", "fsdp_config", "accelerator_config")
"""Options that may name a file of JSON, which the libraries read whole."""
_LONGEST_FILE = 1_000_000


def _fault_of_file(path: Path) -> str | None:
    """Return why a file cannot be a configuration: a device has no end, and from a pipe nothing may ever come."""
    try:
        if not path.exists():
            return None  # it may be text that stands for something else; the library knows
    except OSError:  # it is too long for a name
        return None
    if not path.is_file():
        return f"{path} is not a file."
    size = path.stat().st_size
    return f"{path} has {size:,} bytes; {_LONGEST_FILE:,} are read." if size > _LONGEST_FILE else None


def untried_in_train(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (option, sentence) for each option of a library that is newer than what sftplug knows of it."""
    for name in options:
        if name in train_fields() and not is_known(name):
            yield (
                name,
                "is newer than this sftplug: the trainer is given it, and nobody has tried whether it obeys it here.",
            )


def is_offered(name: str) -> bool:
    """Whether a recipe may set the field, to some value at least."""
    return name not in REFUSED or bool(REFUSED[name].values)


@cache
def train_fields() -> dict[str, LibraryOption]:
    """Return every field of the installed `trl.SFTConfig` by name."""
    return _SOURCE.options("SFTConfig")


def own_default(name: str) -> Any:
    """Return the default that the installed `trl.SFTConfig` gives an option; None where it is found by running it."""
    option = train_fields().get(name)
    return None if option is None else _SOURCE.default(option)


def train_schema() -> dict[str, Any]:
    """Return the JSON Schema of the ``train`` section: every field that it may set."""
    properties = {name: _SOURCE.json_schema(option) for name, option in train_fields().items() if is_offered(name)}
    return {"type": "object", "properties": properties, "additionalProperties": False}
