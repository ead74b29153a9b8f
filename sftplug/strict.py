"""Take numbers and booleans as they are written: ``"10"`` is no number, and neither 1 nor ``yes`` is a boolean.

pydantic's own strict mode would refuse a list for a tuple as well, which is all that YAML can write. So only the types
are made strict where reading more than was written would hide a mistake; an editor with the schema sees the same.
"""

from __future__ import annotations

from typing import Any

_SCALARS = ("int", "float", "bool")
_NO_SCHEMA = ("default", "metadata", "serialization", "config", "expected")


def strict_scalars(schema: Any) -> Any:
    """Return a pydantic core schema in which every number and boolean is taken strictly."""
    if isinstance(schema, list | tuple):
        return type(schema)(strict_scalars(item) for item in schema)
    if not isinstance(schema, dict):
        return schema
    inner = {key: item if key in _NO_SCHEMA else strict_scalars(item) for key, item in schema.items()}
    return {**inner, "strict": True} if schema.get("type") in _SCALARS else inner
