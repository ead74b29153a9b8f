"""The drawing of the core's layers, written from the import contract that CI enforces."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDE = 12


def layers() -> list[list[str]]:
    """Return the rooms of each layer of the core, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (core,) = [contract for contract in contracts if contract.get("containers") == ["sftplug"]]
    return [[room.strip() for room in layer.replace("|", ":").split(":")] for layer in core["layers"]]


def drawing() -> str:
    """Return the layers as a block of text: what stands in a box may import the boxes below, and nothing above."""
    lines = ["plugins      The built-in components, in plugins/. They import `sftplug`, and nothing deeper.", _RULE]
    for rooms in layers():
        lines += [*(f"{room:<{WIDE}} {purpose(room)}" for room in rooms), _RULE]
    return "\n".join(["```text", *lines[:-1], "```"])


_RULE = "─" * 96


def purpose(room: str) -> str:
    """Return the first sentence of the docstring of a room of the core, as far as its first semicolon."""
    module = ROOT / "sftplug" / room
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return f"{text.replace('`', '').partition('. ')[0].partition('; ')[0].removesuffix('.')}."
