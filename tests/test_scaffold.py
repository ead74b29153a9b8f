"""``sftplug plugins new``: what it writes installs, keeps its laws and trains; what it refuses, it refuses in words.

In CI one package of each kind is installed beside the built wheel, in an environment of their own
(``SFTPLUG_FRESH_PYTHON``), and its tests and its recipe run there.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sftplug import PluginError
from sftplug.cli import app
from sftplug.scaffold import KINDS, distribution_name, module_name
from sftplug.types.kind_names import KIND_NAMES

ROOT = Path(__file__).parents[1]
FRESH = os.environ.get("SFTPLUG_FRESH_PYTHON")


def new(*arguments):
    return CliRunner().invoke(app, ["plugins", "new", *map(str, arguments)])


def refused(*arguments):
    result = new(*arguments)
    assert isinstance(result.exception, PluginError), result.output
    return str(result.exception)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One package of each kind, by kind."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        result = new(kind, f"own-{kind}", "--dir", folder)
        assert result.exit_code == 0, result.output
        assert f"cd {folder / f'own-{kind}'}" in result.output
    return {kind: folder / f"own-{kind}" for kind in KINDS}


def lines_of(module):
    """Count the lines that are not blank: imports, docstrings, hook and all."""
    return sum(bool(line.strip()) for line in module.read_text().splitlines())


def test_there_is_a_package_of_every_kind_that_recipes_choose(packages):
    assert tuple(KINDS) == KIND_NAMES
    for kind, folder in packages.items():
        module = folder / f"own_{kind}.py"
        assert 10 < lines_of(module) <= 15, module.read_text()
        files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        assert files >= {"pyproject.toml", "README.md", "recipe.yaml", module.name, f"tests/test_own_{kind}.py"}
        assert not [file for file in folder.rglob("*") if file.is_file() and "$" in file.read_text()]
        project = tomllib.loads((folder / "pyproject.toml").read_text())
        assert project["project"]["name"] == f"sftplug-own-{kind}"  # by which `sftplug plugins search` finds it
        assert project["project"]["keywords"] == ["sftplug-plugin"]
        assert project["project"]["entry-points"]["sftplug"] == {f"own_{kind}": f"own_{kind}"}
        *shipped, quality = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
        assert quality == f"own_{kind}.quality.json"  # which `sftplug plugins test` writes
        for file in shipped:
            assert (folder / file).is_file()
        assert (f"own-{kind}" if kind == "command" else f"own_{kind}") in (folder / "README.md").read_text()


def test_what_is_generated_is_linted_and_typed(packages):
    ruff = [sys.executable, "-m", "ruff"] if not (path := Path(sys.executable).parent / "ruff").exists() else [path]
    folder = packages["format"].parent
    for command in (["check", "--select", "E,F,W,I,UP,B,SIM,C4,RUF,PTH"], ["format", "--check"]):
        result = subprocess.run([*ruff, *command, folder], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    modules = [packages[kind] / f"own_{kind}.py" for kind in KINDS]
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", *modules]
    result = subprocess.run(mypy, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fromat", "acme"), "there is no kind 'fromat'. Did you mean 'format'? Kinds: format, processor, template,"),
        (("format", "-acme"), "'-acme' cannot be the name of a package: use letters, digits, '-', '_' and '.',"),
        (("format", "a b"), "'a b' cannot be the name of a package: use letters"),
        (("format", "2fast"), "'2fast' cannot be the name of a package: Python cannot import a module '2fast'."),
        (("format", "class"), "'class' cannot be the name of a package: Python cannot import a module 'class'."),
        (("adapter", "lora"), "the plugin adapters (sftplug 0.1.0) offers the adapter 'lora' already."),
        (("format", "formats"), "a plugin of that name is installed: formats (sftplug 0.1.0). Choose another name."),
        (("format", "PyYAML"), "a package of that name is installed: PyYAML "),
        (("section", "train"), "recipes have a section 'train' of sftplug's own. Choose another name."),
        (("command", "sftplug-eval"), "sftplug has a command 'eval' of its own. Choose another name."),
        (("format", "json"), "'json' would hide the module 'json', which can be imported already."),
    ],
)
def test_names_that_cannot_be_are_refused(arguments, text, tmp_path):
    kind, name = arguments
    assert text in refused(kind, "--dir", tmp_path, "--", name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "acme").mkdir()
    expected = f"{tmp_path / 'acme'} exists already. Choose another name, or another folder with --dir."
    assert refused("format", "acme", "--dir", tmp_path) == expected
    assert list((tmp_path / "acme").iterdir()) == []


def test_names_become_modules():
    names = ("acme", "Own-Format", "acme.b_c", "a--b", "sftplug-acme", "sftplug_acme")
    assert [module_name(name) for name in names] == ["acme", "own_format", "acme_b_c", "a_b", "acme", "acme"]
    packages = ["sftplug-acme", "sftplug-own-format", "sftplug-acme-b-c", "sftplug-a-b", "sftplug-acme", "sftplug-acme"]
    assert [distribution_name(name) for name in names] == packages


def run(python, folder, *arguments):
    result = subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def prove(python, folder, module):
    """Run the package's own tests and its recipe; return what the run has recorded of the plugin."""
    run(python, folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(python, folder, "-m", "sftplug", "train", "recipe.yaml", "--output", "run")
    used = {plugin["name"]: plugin for plugin in json.loads((folder / "run" / "plugins.json").read_text())}
    assert list((folder / "run").glob("*.safetensors"))
    return used.get(module)


@pytest.mark.slow
@pytest.mark.skipif(FRESH is None, reason="needs an environment with the wheel and one package of each kind: .ci/run")
def test_one_of_each_kind_beside_the_wheel(packages):
    install = [f"--editable={folder}" for folder in packages.values()]
    run(FRESH, ROOT / "tests", "-m", "pip", "install", "--quiet", *install)
    listed = run(FRESH, ROOT / "tests", "-m", "sftplug", "plugins")
    for kind, folder in packages.items():
        assert f"own_{kind}" in listed
        used = prove(FRESH, folder, f"own_{kind}")
        if kind == "command":
            assert run(FRESH, folder, "-m", "sftplug", "own-command", "run").rstrip().endswith("  run")
            continue
        assert (used["distribution"], used["version"]) == (f"sftplug-own-{kind}", "0.1.0")
    # What is installed is the wheel, with the templates of packages in it.
    written = run(FRESH, packages["format"], "-m", "sftplug", "plugins", "new", "masking", "own-again")
    assert "own_again.py" in written


def test_a_generated_module_is_a_plugin_file_too(packages, tmp_path):
    for file in ("own_masking.py", "rows.jsonl", "recipe.yaml"):
        (tmp_path / file).write_text((packages["masking"] / file).read_text())
    with (tmp_path / "recipe.yaml").open("a") as recipe:
        recipe.write("plugins: [./own_masking.py]\n")
    result = CliRunner().invoke(app, ["prepare", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "prepared")])
    assert result.exit_code == 0, result.output
    from datasets import load_from_disk

    weights = load_from_disk(str(tmp_path / "prepared" / "train"))["weights"]
    assert {weight for row in weights for weight in row} == {0.0, 1.0, 3.0}
