"""Documentation that a reader can follow: links lead somewhere, pages can be reached, commands are those there are."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from conftest import TINY, rows, write_rows

import sftplug
from sftplug.cli import app
from sftplug.plugin.deprecation import DEPRECATIONS
from sftplug.recipe import shipped_recipes
from sftplug.recipe.model import Recipe, models_in
from sftplug.recipe.section import Section

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
PAGES = sorted(DOCS.glob("*.md"))
ALL = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        target = link.partition("#")[0]
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {link}, which is not there"


def test_the_index_lists_every_page():
    listed = set(re.findall(r"^([a-z-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert {page.stem for page in PAGES} - {"index"} == listed


def commands(page):
    """Return the words of each `sftplug` command that a page shows to be typed."""
    lines = re.findall(r"^\$ (sftplug .*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", line.partition("  #")[0]).split() for line in lines]


@pytest.mark.parametrize("page", [page for page in ALL if commands(page)], ids=lambda page: page.name)
def test_commands_and_their_options_are_there(page):
    whole = typer.main.get_command(app)
    for _, *line in commands(page):
        command, words = whole, list(line)
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: sftplug {' '.join(line)}"
            command = command.commands[words.pop(0)]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        written = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words))
        assert set(written) <= known, f"{page.name}: sftplug {' '.join(line)}"


# --- README -----------------------------------------------------------------------------------------------------------


def test_the_readme_is_two_screens():
    assert 4_000 < len(README.encode()) < 7_500


def test_a_package_index_gets_no_link_to_a_file_and_no_picture():
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    text = README
    for substitution in hook["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert re.findall(r"\]\((?!https?://)", README)
    assert not re.findall(r"\]\((?!https?://)|!\[|<!--", text)
    assert "picture" not in text
    assert "the first hour with rows of your own" in text
    assert "| `qwen3/8b_qlora` |" in text


def test_the_readme_s_recipe_and_python_example_run(tmp_path, monkeypatch, capsys):
    """As they stand, but for the model, its template, and how long it trains."""
    (recipe,) = re.findall(r"```yaml\n# my.yaml\n(.*?)```", README, re.DOTALL)
    tiny = f"model: {{build: {TINY}}}\nchat_template: chatml\n".replace("'", "")
    recipe = recipe.replace("model: Qwen/Qwen3-0.6B\n", tiny).replace("num_train_epochs: 2", "max_steps: 2")
    assert "Qwen" not in recipe
    assert "max_steps" in recipe
    (tmp_path / "my.yaml").write_text(recipe.replace("eval_fraction: 0.02", "eval_fraction: 0.25"))
    write_rows(tmp_path / "my_rows.jsonl", rows(8))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(import sftplug\n.*?)```", README, re.DOTALL)
    scope = {}
    exec(compile(example.replace('"Who are you?"', '"Who?", max_new_tokens=2'), "README", "exec"), scope)
    assert scope["result"].directory.recipe()["adapter"]["r"] == 32
    assert "⟦" in capsys.readouterr().out


@pytest.fixture
def gpus(monkeypatch):
    """The script that writes the table of GPUs."""
    monkeypatch.syspath_prepend(DOCS)
    import gpus

    return gpus


def test_the_table_of_gpus_is_what_plan_says(gpus):
    """One row, planned anew; `make docs` plans them all."""
    assert all(f"| {row.gpu} | `{row.recipe}` | " in README for row in gpus.ROWS)
    assert {row.recipe for row in gpus.ROWS} <= set(shipped_recipes())
    assert gpus.line(gpus.ROWS[0]) in README


def test_the_picture_is_what_preview_prints():
    command = [sys.executable, str(DOCS / "picture.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"url\((?!#)|<image|<script|@import", (DOCS / "preview.svg").read_text())


# --- changes and contributing -----------------------------------------------------------------------------------------


def test_the_changes_name_this_version_and_whatever_is_deprecated():
    changes = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", changes, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(sftplug.__version__)} - \d{{4}}-\d\d-\d\d", headings[1])
    for item in DEPRECATIONS:
        (line,) = [line for line in re.findall(r"^- .*$", changes, re.MULTILINE) if f"`{item.what}`" in line]
        assert f"in {item.removed_in}" in line, item.what


def test_what_contributors_are_told_is_there():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    files = [f"sftplug/{name}" for name in re.findall(r"`sftplug/([\w/.]*)`", page)]
    files += re.findall(r"(?:tests|docs)/[\w/.-]*[\w/]", page)
    assert len(files) > 15
    assert not [file for file in files if not (ROOT / file).exists()]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([a-z][a-z-]*)", page)) <= set(targets)


# --- the reference ----------------------------------------------------------------------------------------------------


def core_keys(section=Recipe, path=""):
    """Yield (heading of the section, key) for every key that the core reads."""
    for name, field in section.model_fields.items():
        yield path, name
        for inner in models_in(field.annotation):
            if issubclass(inner, Section):
                yield from core_keys(inner, f"{path}.{name}".removeprefix("."))


def test_every_key_of_the_core_stands_in_the_reference_with_what_it_is():
    page = (DOCS / "recipe-keys.md").read_text()
    keys = [*core_keys()]
    assert len(keys) > 65
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    for path, key in keys:
        heading = f"`{path}`" if path else "The recipe"
        (part,) = [part for part in parts if heading in part.partition("\n")[0]]
        (line,) = re.findall(rf"^\| `{key}` \|(.*)\|$", part, re.MULTILINE)
        kind, default, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
        assert kind, key
        assert default, key
        assert meaning.endswith((".", "`")), key
    assert "| `model` | [section](#model) | *required* |" in page
    assert page.count("*required*") == 3


# --- architecture -----------------------------------------------------------------------------------------------------


def test_every_room_and_file_that_the_architecture_names_is_there():
    page = (DOCS / "architecture.md").read_text()
    files = set(re.findall(r"`((?:sftplug|plugins|tests)/[\w/.]*)`", page))
    assert len(files) > 20
    assert not [file for file in files if not (ROOT / file).exists()]
    for name, file in re.findall(r"`(\w+)` in `(sftplug/[\w/]+\.py)`", page):
        defined = [node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")]
        assert name in defined, f"{file} has no {name}"


def test_the_architecture_s_drawing_has_every_room_and_no_other():
    page = (DOCS / "architecture.md").read_text()
    drawn = page[page.index("<!-- layers") : page.index("<!-- end layers")]
    drawn = re.findall(r"^(\w+) {2,}\S", drawn, re.MULTILINE)
    rooms = {path.stem for path in (ROOT / "sftplug").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert {*drawn} - {"plugins"} == rooms - {"__init__", "__pycache__"}
