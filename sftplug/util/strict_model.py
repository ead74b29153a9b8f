"""The base of everything that is written in a recipe: a frozen model that takes what is written, and nothing else."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

_SCALARS = ("int", "float", "bool")
_NO_SCHEMA = ("default", "metadata", "serialization", "config", "expected")


class StrictModel(BaseModel):
    """Take numbers and booleans as they are written: ``"10"`` is not a number, and neither 1 nor ``yes`` is a boolean.

    pydantic's own strict mode would refuse a list for a tuple as well, which is all that YAML can write. So only the
    types are made strict where reading more than was written would hide a mistake; an editor with the schema sees the
    same.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,  # no option means anything by them, unless it says `allow_inf_nan=True` itself
        defer_build=True,  # most classes are listed rather than used
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take numbers and booleans as they are written."""
        return cast("CoreSchema", _strict_scalars(handler(source)))


def _strict_scalars(schema: Any) -> Any:
    """Return a pydantic core schema in which every number and boolean is taken strictly."""
    if isinstance(schema, list | tuple):
        return type(schema)(_strict_scalars(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    inner = {key: item if key in _NO_SCHEMA else _strict_scalars(item) for key, item in schema.items()}
    return {**inner, "strict": True} if schema.get("type") in _SCALARS else inner
