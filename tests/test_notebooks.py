"""The notebooks of the documentation run, cell by cell, and show what they were committed with."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
JUPYTER = bool(find_spec("nbclient") and find_spec("ipykernel"))


def cells(file):
    """Return the cells of code, with what they show."""
    return [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.needs("nbclient and ipykernel", there=JUPYTER)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_and_shows_what_is_kept(notebook):
    command = [sys.executable, str(DOCS / "notebooks.py"), "--check", notebook.stem]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_kept_was_run_and_names_no_machine(notebook):
    assert any("preview" in "".join(cell["source"]) for cell in cells(notebook))
    for cell in cells(notebook):
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert cell["execution_count"], "".join(cell["source"])
        assert "error" not in kinds
        # What shows itself does so once: as HTML, with its text for where there is none.
        assert len([kind for kind in kinds if kind != "stream"]) <= 1
    assert "site-packages" not in notebook.read_text()
    assert str(DOCS.parent) not in notebook.read_text()


@pytest.mark.needs("nbclient and ipykernel", there=JUPYTER)
def test_a_stale_output_is_seen(monkeypatch):
    """Other words and another kind of output are differences; numbers, and what a model answers, are none."""
    import nbformat

    monkeypatch.syspath_prepend(DOCS)
    import notebooks

    kept = nbformat.read(DOCS / "notebooks" / "quickstart.ipynb", as_version=4)
    now = nbformat.read(DOCS / "notebooks" / "quickstart.ipynb", as_version=4)
    shown = [cell for cell in now.cells if cell.get("outputs")]
    loss = next(cell for cell in shown if cell.source.endswith("result.loss"))
    loss.outputs[-1].data["text/plain"] = "0.25"
    assert notebooks.shown(now) == notebooks.shown(kept)
    last = shown[-1].outputs[-1]
    last.data["text/plain"] = last.data["text/plain"].replace("recipe.yaml", "recipe.yml")
    assert notebooks.shown(now) != notebooks.shown(kept)
