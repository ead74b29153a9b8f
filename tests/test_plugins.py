"""A plugin loads or is blamed by name, version, file and line; what a recipe does not use costs it nothing."""

import importlib
import textwrap

import pytest
from strangers import GOOD

from sftplug import PluginError, RecipeError
from sftplug.plugin.manager import load_plugins
from sftplug.recipe import load_recipe


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one plugin, as pip would leave it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(source, name="acme", module="acme_plugin", distribution="acme", version="1.2.3"):
        info = site / f"{distribution}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sftplug]\n{name} = {module}\n")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)

    return add


def test_a_stranger_s_plugin_is_found_with_its_distribution_and_version(install):
    install(GOOD)
    plugins = load_plugins()
    assert str(plugins.loaded["acme"]) == "acme (acme 1.2.3)"
    assert plugins.loaded["acme"].source.name == "acme_plugin.py"
    assert len(plugins.loaded["acme"].sha256) == 64


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all' ("),
        ("def broken(:\n    pass", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3 ("),
        (GOOD.replace("sftplug_maskings", "sftplug_masking"), "Did you mean 'sftplug_maskings'?"),
        (
            GOOD.replace("sftplug_maskings()", "sftplug_maskings(recipe)"),
            "sftplug_maskings() takes 'recipe', but it is called as sftplug_maskings().",
        ),
        ("x = 1", "it implements no hook. Mark its functions with @sftplug.hookimpl."),
    ],
)
def test_a_broken_plugin_is_kept_with_its_reason_and_others_load(install, source, reason):
    install(source)
    plugins = load_plugins()
    assert "formats" in plugins.loaded
    text = str(plugins.broken["acme"])
    assert text.startswith("plugin 'acme' (acme 1.2.3) failed to load: ")
    assert reason in text


def test_the_line_of_an_import_error_is_named(install):
    install("import os\n\nimport nowhere_at_all\n")
    assert str(load_plugins().broken["acme"]).endswith("acme_plugin.py:3)")


def test_a_broken_plugin_costs_only_the_recipes_that_want_it(install, recipe_file):
    install("import nowhere_at_all")
    assert load_recipe(str(recipe_file())).recipe is not None
    with pytest.raises(RecipeError, match=r"plugin 'acme' \(acme 1\.2\.3\) failed to load: ModuleNotFoundError"):
        load_recipe(str(recipe_file(plugins=["acme"])))
    # The missing component may be the broken plugin's, so its reason is shown there too.
    with pytest.raises(RecipeError, match=r"'mine' is not installed\..* Note: plugin 'acme' .* failed to load"):
        load_recipe(str(recipe_file(masking="mine")))


def test_a_plugin_may_be_a_file_named_by_the_recipe(recipe_file, tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(GOOD))
    loaded = load_recipe(str(recipe_file(plugins=["./mine.py"], masking="mine")))
    assert loaded.recipe.masking[0][0].type == "mine"
    assert "mine" in loaded.active
    (tmp_path / "mine.py").write_text("import nowhere_at_all")
    with pytest.raises(RecipeError, match=r"plugins\[0\] .*: plugin file .*mine\.py failed to load: .*mine\.py:1\)"):
        load_recipe(str(recipe_file(plugins=["./mine.py"])))


def test_blocking_and_disabling(install, monkeypatch):
    install(GOOD)
    assert "acme" not in load_plugins(blocked=["acme"]).loaded
    with pytest.raises(
        PluginError, match=r"`without=\['acmee'\]`: no plugin of that name is installed\. Did you mean 'acme'"
    ):
        load_plugins(blocked=["acmee"])
    monkeypatch.setenv("SFTPLUG_DISABLE_PLUGINS", "1")
    assert "acme" not in load_plugins().loaded
    assert "formats" in load_plugins().loaded
