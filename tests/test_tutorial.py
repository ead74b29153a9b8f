"""The tutorial's packages are what `sftplug plugins new` writes, and their tests and recipes hold.

That they install and train, and print what the pages show, CI checks in a fresh environment (``docs/transcript.py``).
"""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

from sftplug.recipe import load_recipe
from sftplug.scaffold import KINDS

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = sorted(folder for folder in (DOCS / "tutorial").iterdir() if folder.is_dir())
CHAPTERS = {kind: DOCS / f"tutorial-{kind}.md" for kind in KINDS}


def load(file, monkeypatch):
    """Import a module from its file, for this test."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_its_own_tests_pass(package, monkeypatch, tmp_path, capsys):
    module = package.name.replace("-", "_")
    load(package / f"{module}.py", monkeypatch)
    tests = load(package / "tests" / f"test_{module}.py", monkeypatch)
    functions = [value for name, value in vars(tests).items() if name.startswith("test_")]
    assert len(functions) >= 2
    for function in functions:
        wanted = inspect.signature(function).parameters
        given = {"tmp_path": tmp_path, "capsys": capsys}
        function(**{name: given[name] for name in wanted})


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_its_recipe_uses_it(package):
    module = package.name.replace("-", "_")
    loaded = load_recipe(str(package / "recipe.yaml"), [f"plugins=[{package / module}.py]"])
    assert module in loaded.active
    if module == "lowest_loss":
        return  # a command, which no recipe chooses
    assert module in {component.type for _, component in loaded.recipe.components()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_chapter_shows_what_is_there(kind):
    """Module, test, recipe and output are included from files, not written out."""
    page = CHAPTERS[kind].read_text()
    included = re.findall(r"```\{literalinclude\} (\S+)", page)
    assert all((DOCS / file).is_file() for file in included)
    (module,) = [file for file in included if re.fullmatch(r"tutorial/[\w-]+/\w+\.py", file)]
    folder = Path(module).parent.as_posix()
    assert {f"{folder}/tests/test_{Path(module).name}", f"{folder}/recipe.yaml"} <= set(included)
    assert f"transcripts/{kind}.txt" in included
    component = Path(module).stem
    assert (f"`{component.replace('_', '-')}`" if kind == "command" else f"`{component}`") in page


def test_from_nothing_to_an_adapter_takes_ten_commands_at_most():
    lines = (DOCS / "transcripts" / "from-nothing.txt").read_text().splitlines()
    commands = [line for line in lines if line.startswith("$ ")]
    assert 5 <= len(commands) <= 10
    assert commands[0] == "$ sftplug plugins new masking digits"
    assert "adapter_model.safetensors" in lines[lines.index("$ ls run") :]
    assert "literalinclude} transcripts/from-nothing.txt" in (DOCS / "start.md").read_text()


def test_the_first_hour_is_shown_as_it_was_and_checked_as_it_is():
    """The transcript on real weights is made of the commands that CI checks on the tiny model."""
    real, tiny = ((DOCS / "transcripts" / f"first-hour{name}.txt").read_text() for name in ("", "-tiny"))
    commands = [[line for line in text.splitlines() if line.startswith("$ ")] for text in (real, tiny)]
    assert commands[0] == commands[1]
    for command in ("check", "preview", "plan", "train", "chat", "merge"):
        assert any(line.startswith(f"$ sftplug {command} ") for line in commands[0])
    assert "You are Tavilo" in real or "I am Tavilo" in real
    assert "merged lora onto the base" in real
    assert "literalinclude} transcripts/first-hour.txt" in (DOCS / "first-hour.md").read_text()
