"""The base of everything that is written in a recipe: a frozen model that takes what is written, and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from sftplug.util.field_docs import Place, field_docs, place_of

_SCALARS = ("int", "float", "bool")
_NO_SCHEMA = ("default", "metadata", "serialization", "config", "expected")


class StrictModel(BaseModel):
    """Take numbers and booleans as they are written: ``"10"`` is not a number, and neither 1 nor ``yes`` is a boolean.

    pydantic's own strict mode would refuse a list for a tuple as well, which is all that YAML can write. So only the
    types are made strict where reading more than was written would hide a mistake; an editor with the schema sees the
    same.
    """

    __sftplug_place__: ClassVar[Place | None] = None

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,  # no option means anything by them, unless it says `allow_inf_nan=True` itself
        defer_build=True,  # most classes are listed rather than used
    )

    def __init_subclass__(cls, **options: Any) -> None:
        """Remember where the class is written, for what the docstrings of its fields say."""
        super().__init_subclass__(**options)
        cls.__sftplug_place__ = place_of(cls.__module__)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say of each field what its docstring says."""
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, words in field_docs(cls).items():
            known = properties.get(cls.model_fields[name].alias or name) if name in cls.model_fields else None
            if known is not None:
                known.setdefault("description", words)
        return made

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
