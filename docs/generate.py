"""Write the reference pages from the code: ``python docs/generate.py``; with ``--check``, fail if they are stale."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from measured import adapters_page, quantizations_page

from sftplug import hookspecs
from sftplug.plugins import load_plugins
from sftplug.registry import HOOKS, build_registry

FOLDER = Path(__file__).parent


def hooks_page() -> str:
    """Return the page of hooks, in call order, each with its exact signature."""
    lines = ["# Hooks", "", str(inspect.getdoc(hookspecs)), ""]
    for name, spec in vars(hookspecs).items():
        if name.startswith("sftplug_"):
            signature = str(inspect.signature(spec)).replace("'", "")
            lines += [f"## `{name}{signature}`", "", str(inspect.getdoc(spec)), ""]
    return "\n".join(lines)


def components_page() -> str:
    """Return the page of built-in components, each with its options."""
    registry = build_registry(load_plugins())
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


def _options(component) -> list[str]:
    fields = {name: field for name, field in component.model_fields.items() if name != "type"}
    if not fields:
        return []
    rows = ["| option | default | |", "|---|---|---|"]
    for name, field in fields.items():
        default = "required" if field.is_required() else f"`{field.default!r}`"
        rows.append(f"| `{name}` | {default} | {' '.join(str(field.description).split())} |")
    return [*rows, ""]


PAGES = {
    "hooks.md": hooks_page,
    "components.md": components_page,
    "adapters.md": adapters_page,
    "quantizations.md": quantizations_page,
}


def main() -> None:
    """Write the pages, or check them."""
    stale = [name for name, page in PAGES.items() if _is_stale(FOLDER / name, page())]
    if "--check" in sys.argv and stale:
        sys.exit(f"stale: {', '.join(stale)}. Run python docs/generate.py")
    for name in stale:
        (FOLDER / name).write_text(PAGES[name](), encoding="utf-8")


def _is_stale(file: Path, text: str) -> bool:
    return not file.is_file() or file.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    main()
