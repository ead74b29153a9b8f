"""Run the notebooks, and keep what they show: ``python docs/notebooks.py``; with ``--check`` nothing is written.

``--check`` runs them too, and fails where a cell fails or shows something else than what is kept: another kind of
output, other words. Numbers, and what a model answers (cells with the tag `varies`), may differ. With names of
notebooks, only those are run.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from transcript import essence

FOLDER = Path(__file__).parent / "notebooks"
HOME = "/home/you"
"""What the folder in which a notebook runs is called in what is kept."""
Notebook = Any


def main() -> None:
    """Run the notebooks that are named, or all; write them, or compare."""
    named = [argument for argument in sys.argv[1:] if argument != "--check"]
    stale = []
    for file in sorted(FOLDER.glob("*.ipynb")):
        if named and file.stem not in named:
            continue
        kept = nbformat.read(file, as_version=4)
        now = run(file)
        if "--check" not in sys.argv:
            nbformat.write(now, file)
        elif difference := list(difflib.unified_diff(shown(kept), shown(now), file.name, "now", lineterm="", n=1)):
            stale.append(file.name)
            print(*difference, sep="\n")
    if stale:
        sys.exit(f"stale: {', '.join(stale)}. Run python docs/notebooks.py")


def run(file: Path) -> Notebook:
    """Return the notebook with what its cells show now, run in a folder of its own. Raises what a cell raises."""
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as name:
        folder = str(Path(name).resolve())
        os.environ |= {
            "IPYTHONDIR": f"{folder}/.ipython",
            "COLUMNS": "100",
            "PYTHONWARNINGS": "ignore:IProgress not found",  # a page shows no widgets
        }
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where, coalesce_streams=True).execute()
    return plain(notebook, folder)


def plain(notebook: Notebook, folder: str) -> Notebook:
    """Return the notebook without what means nothing to a reader: times, versions, the folder, bars that are gone."""
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        if cell.cell_type == "code":
            left = [output for output in cell.outputs if output.get("data", {}).get("text/html") != ""]
            cell.outputs = nbformat.from_dict([_renamed(output, folder) for output in left])
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def _renamed(value: Any, folder: str) -> Any:
    """Return `value`, text and all that holds text, with another name for the folder."""
    if isinstance(value, str):
        return value.replace(folder, HOME)
    if isinstance(value, dict):
        return {key: _renamed(item, folder) for key, item in value.items()}
    return [_renamed(item, folder) for item in value] if isinstance(value, list) else value


def shown(notebook: Notebook) -> list[str]:
    """Return what a notebook says and shows, a line each, without numbers, and without what a model answers."""
    lines = []
    for index, cell in enumerate(notebook.cells):
        lines += [f"cell {index}: {cell.cell_type}", *cell.source.splitlines()]
        for output in cell.get("outputs", ()):
            lines += _output(output, varies="varies" in cell.metadata.get("tags", ()))
    return lines


def _output(output: Any, *, varies: bool) -> Iterator[str]:
    data = output.get("data", {output.get("name", ""): output.get("text", "")})
    yield f"{output.output_type}: {' '.join(sorted(data))}"
    for kind, text in () if varies else data.items():
        words = re.sub(r"<style.*?</style>|<[^>]+>", " ", str(text), flags=re.DOTALL) if kind == "text/html" else text
        yield from (re.sub(r"[\d.,:#]*[\d#]", "#", line) for line in essence(words))


if __name__ == "__main__":
    main()
