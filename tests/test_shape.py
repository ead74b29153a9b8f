"""The promises that the project makes about its own shape."""

import ast
import inspect
import json
import subprocess
import sys
import tomllib
import types
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

import sftplug
from sftplug import Optimizer, Schedule
from sftplug.plugin import hookspecs
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import HOOKS, build_registry
from sftplug.util.field_docs import field_docs

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "accelerate", "numpy", "pandas", "pyarrow")
pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


def test_plugin_folders_entry_points_and_contracts_name_the_same_packages():
    folders = {path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file()}
    entry_points = set(pyproject["project"]["entry-points"]["sftplug"].values())
    checked = set(pyproject["tool"]["importlinter"]["root_packages"]) - {"sftplug"}
    assert len(folders) >= 8
    assert folders == entry_points == checked


def test_plugins_that_are_distributions_of_their_own_are_not_in_the_wheel():
    """CI builds each, installs it beside the wheel as a stranger's, and runs its own tests there."""
    own = sorted(file.parent for file in (ROOT / "plugins").glob("*/pyproject.toml"))
    assert [folder.name for folder in own] == ["sftplug_liger", "sftplug_schedule_free"]
    left_out = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    for folder in own:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert f"plugins/{folder.name}" in left_out
        assert project["name"].replace("-", "_") == folder.name
        assert list(project["entry-points"]["sftplug"].values()) == [folder.name]
        assert list((folder / "tests").glob("test_*.py"))
        assert not (folder / "__init__.py").exists()
    assert "for own in plugins/*/pyproject.toml" in (ROOT / ".ci" / "run").read_text()


def test_every_built_in_plugin_loads(plugins):
    assert plugins.broken == {}
    assert set(plugins.loaded) >= set(pyproject["project"]["entry-points"]["sftplug"])


def test_all_lists_exactly_the_public_names():
    """What is imported when it is asked for is what a type checker is told, and `dir` lists it before."""
    (told,) = (node.body for node in ast.parse(Path(sftplug.__file__).read_text()).body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in told for alias in node.names}
    assert typed == sftplug._HOME
    assert set(typed) == set(sftplug.__all__) <= set(dir(sftplug))
    assert len(typed) > 80
    assert sorted(sftplug.__all__, key=lambda name: (not name.isupper(), name)) == sftplug.__all__
    plain = {
        name
        for name, value in vars(sftplug).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert plain <= set(sftplug.__all__)
    for name in sftplug.__all__:
        assert getattr(sftplug, name) is not None


def test_every_hook_is_documented_and_used_by_a_built_in(plugins):
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("sftplug_")}
    assert len(hooks) >= 12
    for name, spec in hooks.items():
        assert (inspect.getdoc(spec) or "").endswith("."), f"{name} has no docstring"
        users = [i.plugin_name for i in getattr(plugins.manager.hook, name).get_hookimpls()]
        assert users, f"no built-in implements {name}: a hook nobody uses is speculation"


def test_hook_names_say_which_sort_they_are():
    moments = {"recipe_loaded", "dataset_prepared", "trainer_created", "run_finished", "run_failed"}
    moments |= {"evaluation_finished", "checkpoint_saved", "model_merged", "model_exported", "model_pushed"}
    names = {name.removeprefix("sftplug_") for name in vars(hookspecs) if name.startswith("sftplug_")}
    beside = {"commands", "recipes"}
    assert names - moments - beside == {hook.removeprefix("sftplug_") for hook in HOOKS}


def test_every_component_and_option_is_described(plugins):
    offers = [offer for kind in build_registry(plugins).offers.values() for offer in kind.values()]
    assert len(offers) > 30
    for offer in offers:
        component = offer.component
        assert component.__doc__, f"{component} has no docstring"
        assert component.__doc__ != component.__mro__[1].__doc__, f"{component} has no docstring of its own"
        for name, field in component.model_fields.items():
            assert name == "type" or field.description or name in field_docs(component), (
                f"{component.__name__}.{name} is not described"
            )


def test_importing_everything_loads_no_heavy_library():
    code = (
        "import sys, sftplug, sftplug.cli\n"
        "from sftplug.plugin.manager import load_plugins\n"
        "from sftplug.plugin.registry import build_registry\n"
        "plugins = load_plugins(); build_registry(plugins)\n"
        "assert len(plugins.loaded) >= 8\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_all_commands_are_listed_without_the_kinds_of_component():
    """Which are models of pydantic: to make them takes longer than all else that `sftplug --help` does."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom sftplug.cli import app\n"
        "shown = CliRunner().invoke(app, ['--help']).output\n"
        "assert all(name in shown for name in ('train', 'plugins', 'curve')), shown\n"
        "print([name for name in ('pydantic', 'yaml', 'sftplug.plugin.components') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_plugins_import_the_public_api_only():
    files = [file for file in sorted((ROOT / "plugins").rglob("*.py")) if file.parent.name != "tests"]
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module or ""]
            assert not any(name.startswith("sftplug.") for name in names), f"{file}:{getattr(node, 'lineno', 0)}"


def test_files_and_functions_stay_small():
    files = [*sorted((ROOT / "sftplug").rglob("*.py")), *sorted((ROOT / "plugins").rglob("*.py"))]
    assert len(files) > 30
    for file in files:
        text = file.read_text()
        assert text.count("\n") < 400, f"{file} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = {inner.lineno for part in body for inner in ast.walk(part) if hasattr(inner, "lineno")}
                assert len(lines) <= 50, f"{file}:{node.lineno} {node.name} has {len(lines)} lines of code"


def test_no_two_test_modules_have_one_name():
    """Folders of tests are not packages, so pytest imports each module by its bare name."""
    names = Counter(
        path.name
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in ("conftest.py", "__init__.py") and "frozen" not in path.parts  # run from a copy
    )
    assert len(names) > 80
    assert [name for name, count in names.items() if count > 1] == []


def test_the_reference_pages_are_current():
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    hooks = (ROOT / "docs" / "hooks.md").read_text()
    assert hooks.count("\n## `sftplug_") == len([name for name in vars(hookspecs) if name.startswith("sftplug_")])


def test_a_page_names_every_built_in_component(plugins):
    """What is taken over whole from a library has a page of its own, which that page links to."""
    docs = ROOT / "docs"
    page = (docs / "built-ins.md").read_text()
    pages = {"peft": "adapters.md", "transformers": "quantizations.md"}
    facts = {name: json.loads((ROOT / "plugins" / f"sftplug_{name}" / "facts.json").read_text()) for name in pages}
    assert all(f"]({name})" in page for name in pages.values())
    for kind, offers in build_registry(plugins).offers.items():
        for name, offer in offers.items():
            if offer.plugin.distribution != "sftplug":
                continue
            if offer.library is None:
                assert f"`{name}`" in page, name
            elif version(offer.library) == facts[offer.library]["versions"][offer.library]:
                of_kind = "how-optimizer.md" if kind in (Optimizer, Schedule) else pages[offer.library]
                assert f"`{name}`" in (docs / of_kind).read_text(), name


def test_the_readme_s_plugin_is_what_the_tests_install():
    readme = (ROOT / "README.md").read_text()
    assert (ROOT / "tests" / "third_party" / "acme_masking.py").read_text() in readme
