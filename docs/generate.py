"""Write the reference pages from the code: ``python docs/generate.py``; with ``--check``, fail if they are stale."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import yaml
from kinds import data_classes, kinds_page
from layers import drawing
from marked import fill
from measured import adapters_page, quantizations_page
from packages import package_files
from proofs import proofs_page
from recipe_keys import recipe_keys_page
from shapes import shapes_page
from train_options import train_options_page

from sftplug.plugin import hookspecs
from sftplug.plugin.components import Component
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import HOOKS, Registry, build_registry
from sftplug.recipe.describe import options_of

FOLDER = Path(__file__).parent


def hooks_page() -> str:
    """Return the page of hooks, in call order, each with its exact signature."""
    lines = ["# Hooks", "", str(inspect.getdoc(hookspecs)), "", _MORE, ""]
    for name, spec in vars(hookspecs).items():
        if name.startswith("sftplug_"):
            signature = str(inspect.signature(spec)).replace("'", "")
            lines += [f"## `{name}{signature}`", "", str(inspect.getdoc(spec)), ""]
    lines += ["## What hooks are given", "", _GIVEN, "", *data_classes(*HANDED_OVER)]
    return "\n".join(lines).rstrip() + "\n"


HANDED_OVER = (
    "MomentContext",
    "RunTrainer",
    "Ledger",
    "Account",
    "RowGroups",
    "RowGroup",
    "Mixed",
    "Packing",
    "RunResult",
    "Size",
    "MovedWeights",
)
"""What hooks hand to plugins and no other page describes."""


_GIVEN = (
    "Importable from `sftplug`, so that a plugin can annotate what it gets; `Recipe` has the sections that "
    "[recipes](recipes.md) have, and its components are [the kinds](kinds.md). Fields may be added, and none goes "
    "without a warning first ([API changes](api-changes.md))."
)


_MORE = (
    "When each of them is called, and what a plugin does in between, is told in [how a run goes](how-a-run-goes.md); "
    "the classes that are offered are in [the kinds](kinds.md). An implementation may leave out arguments that it does "
    "not need."
)


def components_page(registry: Registry) -> str:
    """Return the page of built-in components, each with its options."""
    lines = ["# Components", "", _INTRODUCTION, ""]
    for hook, kind in HOOKS.items():
        lines += [f"## {kind.__name__} (`{hook}`)", "", str(inspect.getdoc(kind)), ""]
        for name, offer in sorted(registry.offers[kind].items()):
            if offer.plugin.distribution == "sftplug" and offer.library is None:
                lines += [f"### `{name}`", "", str(inspect.getdoc(offer.component)), "", *_options(offer.component)]
    return "\n".join(lines)


_INTRODUCTION = (
    "Every component that sftplug ships, with its options and their defaults. What it takes over whole from libraries "
    "is listed apart: the [adapter types of PEFT](adapters.md) and the "
    "[quantization methods of transformers](quantizations.md)."
)


def _options(component: type[Component]) -> list[str]:
    options = options_of(component)
    if not options:
        return []
    rows = ["| option | type | default | |", "|---|---|---|---|"]
    rows += [f"| `{o.name}` | {_cell(o.type)} | {_default(o.default)} | {_cell(o.description)} |" for o in options]
    return [*rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(text: str) -> str:
    if "\n" in text:  # a table has a line a row
        text = json.dumps(yaml.safe_load(text))
    return text if text == "required" else f"`{_cell(text)}`"


def files() -> dict[str, str]:
    """Return path below this folder -> text of everything that is generated."""
    registry = build_registry(load_plugins())
    return {
        "hooks.md": hooks_page(),
        "kinds.md": kinds_page(),
        "recipe-keys.md": recipe_keys_page(registry),
        "components.md": components_page(registry),
        "adapters.md": adapters_page(),
        "quantizations.md": quantizations_page(),
        "train-options.md": train_options_page(),
        "shapes.md": shapes_page(),
        "proven-recipes.md": proofs_page(),
        "architecture.md": fill(_here("architecture.md"), "layers", drawing()),
        **package_files(registry),
    }


def _here(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def main() -> None:
    """Write the files, or check them."""
    wanted = files()
    stale = [name for name, text in wanted.items() if _is_stale(FOLDER / name, text)]
    left = [file for file in _package_files_here() if file not in wanted]
    if "--check" in sys.argv and stale + left:
        sys.exit(f"stale: {', '.join(stale + left)}. Run python docs/generate.py")
    for name in left:
        (FOLDER / name).unlink()
    for name in stale:
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(wanted[name], encoding="utf-8")


def _package_files_here() -> list[str]:
    """Return the files of the tutorial's packages that are here, without what Python and pip leave beside them."""
    files = (file.relative_to(FOLDER) for file in sorted((FOLDER / "tutorial").rglob("*")) if file.is_file())
    return [file.as_posix() for file in files if not any(part.startswith((".", "__", "run")) for part in file.parts)]


def _is_stale(file: Path, text: str) -> bool:
    return not file.is_file() or file.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    main()
