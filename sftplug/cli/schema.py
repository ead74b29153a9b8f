"""``sftplug schema``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftplug.cli.options import NoPlugin, warn
from sftplug.plugin.manager import load_plugins
from sftplug.storage.writable import refuse_unwritable_file, write_file

if TYPE_CHECKING:
    from sftplug.plugin.registry import Registry

SCHEMA_FILE = "recipe.schema.json"
"""The name under which recipes look for their schema: beside them, or in the folder of the shipped ones."""


def schema(
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write it there instead.")] = None,
    no_plugin: NoPlugin = None,
) -> None:
    """Print the JSON Schema of a recipe for exactly what is installed; editors complete and check with it."""
    from sftplug.plugin.registry import build_registry

    if output is not None:
        refuse_unwritable_file(output)
    registry = build_registry(load_plugins(no_plugin or []))
    warn(registry.warnings())
    if output is None:
        typer.echo(_text(registry, Path()), nl=False)
    else:
        write_schema(output, registry)
        typer.echo(f"# yaml-language-server: $schema={output.name}")


def write_schema(file: Path, registry: Registry) -> None:
    """Write the schema of what `registry` offers, for recipes beside it."""
    write_file(file, _text(registry, file.parent))


def _text(registry: Registry, folder: Path) -> str:
    from sftplug.recipe.house import house_above
    from sftplug.recipe.schema import recipe_schema

    in_use = house_above(folder).plugins
    return json.dumps(recipe_schema(registry, in_use), indent=1, ensure_ascii=False) + "\n"
