"""Plugins as they were built against 0.1.0 load, keep their laws and train today, unchanged.

What is in ``tests/frozen`` is never edited: what they need and what moved keeps its public name, if with a warning.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sftplug

FROZEN = Path(__file__).parent / "frozen" / "0.1.0"
KINDS = ("adapter", "callback", "format", "masking", "metric", "quantization", "source", "template")
ACME = ("acme_adapter", "acme_format", "acme_masking", "acme_metric", "acme_quantization")
ANNOUNCED = "sftplug.plugin.deprecation.ApiDeprecationWarning"
"""What plugins of 0.1.0 may be told: nothing warns so but what is listed there, with what to do and until when."""
pytestmark = pytest.mark.filterwarnings(f"ignore::{ANNOUNCED}")
DIGEST = "823ce0630c6986f58d49f6e31ee499cf70fed5498867701998d3b139cc618c48"
"""SHA-256 over every file of the corpus, by name."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A copy of the corpus: what runs writes beside itself."""
    return shutil.copytree(FROZEN, tmp_path_factory.mktemp("frozen") / "0.1.0")


def test_the_corpus_is_as_it_was():
    """A plugin that was made to fit proves nothing."""
    digest = hashlib.sha256()
    for file in sorted(FROZEN.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(FROZEN).as_posix()}\0".encode() + file.read_bytes())
    assert digest.hexdigest() == DIGEST, "the plugins of tests/frozen are not edited: see its README"


# --- packages, installed ----------------------------------------------------------------------------------------------

WORK = """
import json, os, sys, warnings
warnings.simplefilter("error", DeprecationWarning)
import sftplug
from sftplug.plugin.deprecation import ApiDeprecationWarning
warnings.simplefilter("ignore", ApiDeprecationWarning)
said = {}
for folder in sys.argv[1:]:
    os.chdir(folder)
    recipe = sftplug.load("recipe.yaml", "train.max_steps=2", "output=run")
    problems = sftplug.check(recipe)
    run = sftplug.train(recipe, show=False)
    used = {plugin["name"]: plugin["distribution"] for plugin in run.directory.plugins()}
    said[folder] = {"problems": problems, "loss": run.loss, "replies": run.replies, "used": used}
print(json.dumps(said))
"""


def install(corpus, site):
    """Put the packages into the folder `site` as pip would, each from its ``pyproject.toml``."""
    for folder in [*(corpus / "packages").iterdir(), corpus / "acme"]:
        told = tomllib.loads((folder / "pyproject.toml").read_text())
        project, shipped = told["project"], told["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in project["dependencies"])
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{needs}"
        )
        points = project["entry-points"]["sftplug"]
        (info / "entry_points.txt").write_text(
            "[sftplug]\n" + "".join(f"{name} = {module}\n" for name, module in points.items())
        )
        for file in shipped:
            shutil.copy(folder / file, site)
    return site


@pytest.fixture(scope="module")
def beside(corpus, tmp_path_factory):
    """Return a function that runs Python with the packages installed."""
    site = install(corpus, tmp_path_factory.mktemp("site"))

    def python(*arguments):
        ran = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=corpus,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return python


def test_the_packages_train(corpus, beside):
    folders = [*(corpus / "packages" / f"frozen-{kind}" for kind in KINDS), corpus / "acme"]
    said = json.loads(beside("-c", WORK, *folders).splitlines()[-1])
    for folder, told in said.items():
        assert told["problems"] == [], folder
        assert told["loss"] > 0, folder
    for kind in KINDS:
        told = said[str(corpus / "packages" / f"frozen-{kind}")]
        assert told["used"][f"frozen_{kind}"] == f"frozen-{kind}"
    assert {said[str(corpus / "acme")]["used"][name] for name in ACME} == {"sftplug-acme"}
    assert said[str(corpus / "acme")]["replies"]["metrics"]["brief"]["mean"] == 1.0
    assert said[str(corpus / "packages" / "frozen-metric")]["replies"]["metrics"]["frozen_metric"]["rows"] > 0


@pytest.mark.slow
def test_the_tests_that_came_with_the_packages_pass(corpus, beside):
    tests = [corpus / "packages" / f"frozen-{kind}" / "tests" for kind in KINDS]
    strict = ("-W", "error::DeprecationWarning", "-W", f"ignore::{ANNOUNCED}")
    told = beside("-m", "pytest", "-q", "-p", "no:cacheprovider", *strict, "--rootdir", corpus, *tests)
    assert "18 passed" in told


# --- files of a recipe ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_is_a_plugin_file(kind, corpus, monkeypatch):
    folder = corpus / "packages" / f"frozen-{kind}"
    monkeypatch.chdir(folder)
    found = sftplug.load("recipe.yaml", f"plugins=[./frozen_{kind}.py]")
    assert f"frozen_{kind}" in found.active
    assert sftplug.check(found) == []


def test_the_strangers_files_train_together(corpus, monkeypatch):
    monkeypatch.chdir(corpus / "acme")
    plugins = ", ".join(f"./{name}.py" for name in ACME)
    run = sftplug.train(sftplug.load("recipe.yaml", f"plugins=[{plugins}]", "output=by_files"), show=False)
    assert json.loads((run.output / "adapter_config.json").read_text())["peft_type"] == "IA3"
    assert run.replies["metrics"]["brief"]["mean"] == 1.0


def test_a_length_policy_a_model_builder_and_every_moment(corpus, monkeypatch):
    monkeypatch.chdir(corpus / "files")
    recipe = sftplug.load("recipe.yaml")
    assert sftplug.check(recipe) == []
    run = sftplug.train(recipe, show=False)
    moments = {
        line["moment"]: line for line in map(json.loads, (run.output / "moments.jsonl").read_text().splitlines())
    }
    assert list(moments) == ["loaded", "prepared", "created", "finished"]
    assert moments["loaded"]["adapter"] == "full"
    assert moments["prepared"]["kept"] == {"train": 2}
    assert moments["created"]["trained"] == moments["created"]["of"] == run.size.trainable
    assert (moments["finished"]["loss"], moments["finished"]["tokens"]) == (run.loss, run.tokens)
    with pytest.raises(sftplug.DataError):
        sftplug.train(sftplug.load("recipe.yaml", "data.max_length=5", "data.max_loss=0", "output=failed"), show=False)
    assert json.loads(Path("failed/failed.json").read_text()) == "DataError"


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = """
PARTS ROLES ROLE_CODES Adapter Callback ChatTemplate Conversation DataError DatasetFormat DatasetSource Deferred Field
InputPath Interrupted LaunchError LengthPolicy LibrarySource LongRow LossSums MaskError Masking Message Metric
MissingLibraryError ModelBuilder ModelError PluginError Problem Quantization Recipe RecipeError Reply Row RowError
RunDirectory RunError SftplugError Size TemplateError TokenBatch ToolCall TrainingError did_you_mean hookimpl measure
read_text render_prompt require set_options without_secrets
"""
TESTING = """
LawBroken assistant_spans check_adapter check_callback check_component check_format check_length_policy check_masking
check_metric check_quantization check_source check_template token_batch
"""


def test_every_public_name_is_there():
    from sftplug import testing

    assert [name for name in NAMES.split() if not hasattr(sftplug, name)] == []
    assert [name for name in TESTING.split() if not hasattr(testing, name)] == []
