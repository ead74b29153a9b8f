"""Recipes, rows and model folders of somebody who means harm: `check` ends soon, takes little, and answers in words."""

import json
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from model_files import MODELS
from recipe_files import RECIPES
from row_files import ROWS
from workplace import Workplace

SECONDS, MEGABYTES = 20, 1000
"""What checking one of them may cost."""
RECIPE = {
    "model": {"build": {"type": "tiny", "pretrain_steps": 0, "layers": 1, "hidden_size": 32}},
    "chat_template": "chatml",
    "quantization": "fp32",
}
CRASHES = re.compile(r"Traceback|sftplug failed|RecursionError|MemoryError|Errno|site-packages")
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x9b\u202a-\u202e\u2066-\u2069]")
"""What would tell the terminal what to do."""


def attempt(argument):
    """Run a command as a user would; return its exit code and all that is printed."""
    from typer.testing import CliRunner

    from sftplug.cli import _said, app
    from sftplug.errors import SftplugError

    os.chdir(argument["folder"])
    logging.raiseExceptions = False  # what the libraries log goes to a stream that the last command had
    result = CliRunner().invoke(app, argument["command"])
    error = result.exception
    if error is not None and not isinstance(error, SftplugError | SystemExit):
        return "crashed", f"{result.output}\n{type(error).__name__}: {error}"
    code = getattr(error, "exit_code", result.exit_code)
    return code, f"{result.output}\n{_said(str(error)) if isinstance(error, SftplugError) else ''}"


@pytest.fixture(scope="module")
def workplace():
    place = Workplace("test_files")
    yield place
    place.close()


@pytest.fixture
def answered(workplace, tmp_path):
    """Return a function that checks the recipe in the folder of the test, and holds the answer to its bounds."""

    def check(words, code, command="check"):
        outcome, seconds, megabytes = workplace.run({"folder": str(tmp_path), "command": [command, "recipe.yaml"]})
        assert outcome != "endless"
        assert outcome[0] == code, outcome[1][-3_000:]
        assert not CRASHES.search(outcome[1]), outcome[1][-3_000:]
        assert re.search(words, outcome[1], re.DOTALL), outcome[1][-3_000:]
        assert not CONTROLS.search(outcome[1]), outcome[1]
        assert len(outcome[1]) < 20_000
        assert seconds < SECONDS
        assert megabytes < MEGABYTES

    return check


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """Return the folder of a small model as somebody might publish it."""
    from sftplug.model.loading import base_model_path
    from sftplug.recipe import load_recipe

    file = tmp_path_factory.mktemp("small") / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, "data": {"train": {"path": str(file), "format": "text"}}}))
    return base_model_path(load_recipe(str(file)).recipe)


def put(path, content):
    """Write `content`, or let it make what is at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ends_in_words(name, tmp_path, answered):
    recipe = RECIPES[name]
    reply = json.dumps(
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": recipe.reply}]}
    )
    for file, content in {"rows.jsonl": reply, "recipe.yaml": recipe.text, **(recipe.files or {})}.items():
        put(tmp_path / file, content)
    answered(recipe.words, recipe.code)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ROWS)
def test_rows_end_in_words(name, tmp_path, answered):
    rows = ROWS[name]
    put(tmp_path / rows.name, rows.content)
    source = {"path": rows.name, "format": rows.format}
    recipe = {
        **RECIPE,
        "masking": "all" if rows.format == "text" else "assistant",
        "data": {"train": source, **rows.data},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    answered(rows.words, rows.code)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_ends_in_words(name, tmp_path, model_folder, answered):
    model = MODELS[name]
    shutil.copytree(model_folder, tmp_path / "model")
    model.change(tmp_path / "model")
    put(
        tmp_path / "rows.jsonl",
        '{"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]}\n',
    )
    recipe = {
        "model": {"name_or_path": "./model"},
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}},
        "chat_template": "tokenizer" if (tmp_path / "model" / "chat_template.jinja").exists() else "chatml",
        "quantization": "fp32",
        "train": {"max_steps": 1},
        "output": "out",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    answered(model.words, model.code, model.command)
    assert not (tmp_path / "owned").exists()


def test_there_are_many():
    assert len(MODELS) >= 30
    assert len(RECIPES) >= 40
    assert len(ROWS) >= 80


def test_the_page_on_safety_names_tests_that_are_there_and_as_many_inputs_as_there_are():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "safety.md").read_text()
    _, _, promises = page.partition("## How each promise is tested")
    rows = [line for line in promises.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 12
    assert all(re.findall(r"`(tests/[\w/]+\.py)`", row) for row in rows)
    named = set(re.findall(r"`(tests/[\w/.]+)`", page))
    assert [name for name in sorted(named) if not (root / name).exists()] == []
    templates = len(list((root / "tests" / "hostile" / "templates").glob("*.jinja")))
    counts = re.search(r"checks (\d+) recipes, (\d+) files of rows and (\d+) folders of models", page)
    assert f"with {templates} templates of people who mean harm" in page.replace("\n", " ").replace("  ", " ")
    assert [int(count) for count in counts.groups()] == [len(RECIPES), len(ROWS), len(MODELS)]
