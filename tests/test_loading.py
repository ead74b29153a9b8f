"""Broken plugins, installed as pip leaves them: who needs one is told all about it, who does not is told once."""

import json
import re

import pytest
from strangers import GOOD, Site

HEAD = "plugin 'acme' (acme 1.2.3) failed to load: "
OFFER = "@sftplug.hookimpl\ndef sftplug_maskings():\n    return [Mine]\n"

BROKEN = {
    "an import error": ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all' (FILE:1)"),
    "an error in what it imports": (
        "import json\njson.loads('{')\n",
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) "
        "(FILE:2, raised at ",
    ),
    "a syntax error": ("x = 1\ndef broken(:\n", "SyntaxError: invalid syntax (FILE:2)"),
    "an exit": ("raise SystemExit(3)\n", "SystemExit: 3 (FILE:1)"),
    "a misspelt hook": (
        GOOD.replace("sftplug_maskings", "sftplug_masking"),
        "unknown hook 'sftplug_masking' (FILE:9). Did you mean 'sftplug_maskings'? sftplug 0.1.0, which is "
        "installed, has no such hook; the plugin may be built for another version.",
    ),
    "a wrong signature": (
        GOOD.replace("maskings()", "maskings(recipe)"),
        "sftplug_maskings() takes 'recipe', but it is called as sftplug_maskings(). (FILE:9)",
    ),
    "a wrong signature of a moment hook": (
        GOOD + "\n@sftplug.hookimpl\ndef sftplug_recipe_loaded(recipes):\n    pass\n",
        "sftplug_recipe_loaded() takes 'recipes', but it is called as sftplug_recipe_loaded(recipe, origins, "
        "context). Did you mean 'recipe'? (FILE:13)",
    ),
    "a hook without its mark": (
        GOOD + "\ndef sftplug_recipe_loaded(recipe):\n    pass\n",
        "sftplug_recipe_loaded() is not marked with @sftplug.hookimpl (FILE:13)",
    ),
    "a hook that wraps": (
        GOOD.replace("hookimpl\n", "hookimpl(wrapper=True)\n"),
        "sftplug_maskings() is a wrapper: a hook of sftplug offers or observes, and wraps no other (FILE:9)",
    ),
    "no hook": ("x = 1\n", "it implements no hook"),
    "a wrong return type": (
        GOOD.replace("return [Mine]", "return Mine"),
        "plugin acme (acme 1.2.3): sftplug_maskings() must return a list of component classes, not ModelMetaclass "
        "(FILE:9)",
    ),
    "a component of another kind": (
        GOOD.replace("return [Mine]", "return [sftplug.DatasetFormat]"),
        "sftplug_maskings() offers <class 'sftplug.plugin.components.rows.DatasetFormat'>, which is not a subclass of "
        "sftplug.Masking (FILE:9)",
    ),
    "an object in place of a class": (
        GOOD.replace("[Mine]", "[Mine()]"),
        "sftplug_maskings() offers Mine(type='mine'), which is not a subclass of sftplug.Masking (FILE:9)",
    ),
    "an abstract component": (
        GOOD.replace("def weights", "def wieghts"),
        "sftplug_maskings() offers Mine, which does not define weights() (FILE:4)",
    ),
    "a component without a name": (
        GOOD.replace('    type: str = "mine"\n', ""),
        "sftplug_maskings() offers Mine, which has no name: give it `type: Literal['name'] = 'name'` (FILE:4)",
    ),
    "a component with a name that no recipe can write": (
        GOOD.replace('"mine"', '"a + b"'),
        "sftplug_maskings() offers Mine, which is named 'a + b': use letters, digits, `_` and `-` (FILE:4)",
    ),
    "a component with a name that is read as nothing": (
        GOOD.replace('"mine"', '"Null"'),
        "sftplug_maskings() offers Mine, which is named 'Null', which means something else where a recipe would choose "
        "it: choose another name (FILE:4)",
    ),
    "a hook that raises": (
        GOOD.replace("return [Mine]", "return [][0]"),
        "plugin acme (acme 1.2.3): sftplug_maskings() failed: IndexError: list index out of range (FILE:11)",
    ),
    "a name of a newer sftplug": (
        "from sftplug import Field, Maskng\n",
        "ImportError: cannot import name 'Maskng' from 'sftplug' ",
    ),
    "an attribute of a newer sftplug": (
        "import sftplug\nclass Loss(sftplug.Lossy):\n    pass\n",
        "AttributeError: module 'sftplug' has no attribute 'Lossy' (FILE:2) sftplug 0.1.0, which is installed, has "
        "no `Lossy`; the plugin may be built for another version.",
    ),
}


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


@pytest.mark.parametrize("case", BROKEN)
def test_a_recipe_that_wants_a_broken_plugin_is_refused_with_its_place(site, recipe_file, case):
    source, reason = BROKEN[case]
    file = site.install(source)
    result = site.sftplug("check", recipe_file(plugins=["acme"]))
    assert result.returncode == 2, result.stdout
    assert "plugins[0] (recipe.yaml:21): " + HEAD in result.stderr
    assert reason.replace("FILE", str(file)) in result.stderr
    assert "Traceback" not in result.stderr


def test_the_same_faults_in_a_file_of_the_recipe(site, recipe_file, tmp_path):
    for case, (source, reason) in BROKEN.items():
        file = tmp_path / "acme.py"
        file.write_text(source)
        # In this process: what is tested is what is said, and there are many.
        from sftplug import RecipeError
        from sftplug.recipe import load_recipe

        with pytest.raises(RecipeError) as caught:
            load_recipe(str(recipe_file(plugins=["./acme.py"])))
        text = str(caught.value)
        expected = reason.replace("FILE", str(file)).replace("acme (acme 1.2.3)", "acme (file)")
        assert expected in text, f"{case}: {text}"


def test_a_recipe_that_needs_none_of_them_runs_and_each_is_warned_about_once(site, recipe_file, tmp_path):
    for index, (source, _) in enumerate(BROKEN.values()):
        site.install(source, name=f"broken{index}")
    site.install("", name="twice", distribution="first")
    site.install("", name="twice", distribution="second")
    site.install(GOOD, name="one")
    site.install(GOOD, name="other")
    site.install(
        "import sftplug\n@sftplug.hookimpl\ndef sftplug_recipe_loaded(recipe):\n    raise RuntimeError('not asked')\n",
        name="watcher",
    )
    result = site.sftplug("train", recipe_file(train={"max_steps": 1}))
    assert result.returncode == 0, result.stderr
    warnings = result.stderr.splitlines()
    assert len(warnings) == len(BROKEN) + 2, result.stderr
    for index in range(len(BROKEN)):
        assert result.stderr.count(f"warning: plugin 'broken{index}' (broken{index} 1.2.3) failed to load: ") == 1
    assert result.stderr.count("warning: two plugins are named 'twice': first 1.2.3 (") == 1
    assert result.stderr.count("warning: two plugins offer the masking 'mine': one (one 1.2.3), ") == 1
    # Installed is not active: the record names what was used, and nothing else.
    used = json.loads((tmp_path / "out" / "plugins.json").read_text())
    builtin = [
        "adapters",
        "console",
        "formats",
        "length",
        "losses",
        "masking",
        "quantization",
        "sources",
        "templates",
        "tiny",
    ]
    assert [plugin["name"] for plugin in used] == builtin
    assert {len(plugin["sha256"]) for plugin in used} == {64}
    listed = site.sftplug("plugins")
    assert listed.returncode == 0
    assert listed.stderr.splitlines() == warnings
    assert "broken" not in listed.stdout
    assert "watcher" in listed.stdout


def test_a_component_that_two_plugins_offer_is_refused_naming_both(site, recipe_file):
    mine = site.install(GOOD.replace('"mine"', '"assistant"'))
    result = site.sftplug("check", recipe_file())
    assert result.returncode == 2
    assert "masking (recipe.yaml:1): two plugins offer the masking 'assistant': acme (acme 1.2.3), class Mine in " in (
        result.stderr
    )
    assert f"class Mine in {mine}:4 and masking (sftplug 0.1.0), class Assistant in " in result.stderr
    assert re.search(r"select\.py:\d+\. Leave one out with --no-plugin acme or --no-plugin masking, or", result.stderr)
    goes_on(site, recipe_file(), "--no-plugin", "acme")
    goes_on(site, recipe_file(masking="completion"))


def goes_on(site, *arguments):
    """Prove that the plugins stop nothing, by an error further on: it is the only one, and nothing heavy is loaded."""
    result = site.sftplug("check", *arguments, "train.sed=1")
    assert "1 problem\n  train.sed (command line): unknown option" in result.stderr


def test_a_component_that_one_plugin_offers_twice(site, recipe_file):
    site.install(GOOD.replace("[Mine]", "[Mine, Mine]"))
    result = site.sftplug("check", recipe_file(masking="mine"))
    assert result.returncode == 2
    assert "plugin acme offers twice the masking 'mine': acme (acme 1.2.3), class Mine in " in result.stderr


def test_a_plugin_name_that_two_distributions_claim(site, recipe_file):
    site.install(GOOD, distribution="first")
    site.install(GOOD.replace("mine", "yours"), distribution="second", version="9")
    text = (
        f"two plugins are named 'acme': first 1.2.3 (first_plugin, {site.folder}/first_plugin) and "
        f"second 9 (second_plugin, {site.folder}/second_plugin). Uninstall one of them, leave one out with "
        "--no-plugin first:acme or --no-plugin second:acme, or ask its author for another entry-point name."
    )
    listed = recipe_file(plugins=["acme"])
    assert text in site.sftplug("check", listed).stderr
    # The component may be offered by either of them, so the clash is shown there too.
    needed = recipe_file(masking="yours")
    result = site.sftplug("check", needed)
    assert result.returncode == 2
    assert "'yours' is not installed. Did you mean 'turns'? Known: all, assistant, " in result.stderr
    assert text in result.stderr + "."
    goes_on(site, needed, "--no-plugin", "first:acme")


@pytest.mark.parametrize("case", ["an import error", "a misspelt hook", "a wrong return type"])
def test_no_plugin_leaves_a_broken_one_out_even_where_the_recipe_lists_it(site, recipe_file, case):
    site.install(BROKEN[case][0])
    listed = site.sftplug("plugins", "--no-plugin", "acme")
    assert (listed.returncode, listed.stderr) == (0, "")
    goes_on(site, recipe_file(plugins=["acme"]), "--no-plugin", "acme")


def test_a_switch_leaves_out_everything_but_what_is_built_in(site, recipe_file):
    site.install("import nowhere_at_all", name="broken")
    site.install(GOOD)
    off = {"SFTPLUG_DISABLE_PLUGINS": "1"}
    listed = site.sftplug("plugins", **off)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "acme" not in listed.stdout
    wanted = site.sftplug("check", recipe_file(plugins=["acme"]), **off)
    assert (
        "plugin 'acme' is installed, but SFTPLUG_DISABLE_PLUGINS is set: only sftplug's own are loaded."
        in wanted.stderr
    )
    needed = site.sftplug("check", recipe_file(masking="mine"), **off)
    assert "Note: left out because SFTPLUG_DISABLE_PLUGINS is set: acme, broken." in needed.stderr
    # A plugin that is switched off may be named on a command line that others use too.
    assert site.sftplug("plugins", "--no-plugin", "acme", **off).returncode == 0


def test_a_plugin_for_a_newer_sftplug_is_not_even_imported(site, recipe_file, tmp_path):
    site.install(
        f"open({str(tmp_path / 'imported')!r}, 'w')\n{GOOD}",
        requires=["click>=1", 'sftplug>=99; extra == "dev"', "sftplug>=7.5,<8"],
    )
    result = site.sftplug("check", recipe_file(plugins=["acme"]))
    assert result.returncode == 2
    said = HEAD + "it is built for sftplug <8,>=7.5, and this is sftplug 0.1.0. Run: pip install 'sftplug<8,>=7.5', "
    assert said + "or install a version of it that fits." in result.stderr
    assert not (tmp_path / "imported").exists()
    fits = Site(tmp_path / "fits")
    fits.install(GOOD, requires=['sftplug>=99; extra == "dev"', "sftplug>=0.1"])
    assert fits.sftplug("plugins").stderr == ""


def test_a_default_of_the_wrong_type_is_the_plugin_s_fault(site, recipe_file):
    file = site.install(GOOD.replace('"mine"\n', '"mine"\n    width: int = "wide"\n'))
    result = site.sftplug("check", recipe_file(masking="mine"))
    assert result.returncode == 2
    assert (
        "masking.width (recipe.yaml:20): the default that plugin acme (acme 1.2.3) gives it is wrong: must be a "
        f"whole number, not 'wide' ({file}:4). Set it in the recipe until it is fixed." in result.stderr
    )


def test_options_that_are_no_pydantic_model(site, recipe_file):
    file = site.install(GOOD.replace('"mine"\n', '"mine"\n    width: Nowhere\n').replace("\nimport", NOTES))
    result = site.sftplug("check", recipe_file(masking="mine"))
    assert result.returncode == 2
    assert "plugin acme (acme 1.2.3): the options of Mine are not a pydantic model: " in result.stderr
    assert f"({file}:4)" in result.stderr
    goes_on(site, recipe_file())


NOTES = "from __future__ import annotations\nimport"


def test_verbose_shows_every_hook_call_with_plugin_and_result(site, recipe_file):
    site.install(GOOD + "\n@sftplug.hookimpl\ndef sftplug_recipe_loaded(recipe):\n    pass\n")
    listed = site.sftplug("plugins", "-v")
    assert "sftplug.hooks: sftplug_maskings() of acme (acme 1.2.3) -> [<class 'acme_plugin.Mine'>]" in listed.stderr
    result = site.sftplug("check", recipe_file(masking="mine"), "-v")
    assert (
        "sftplug.hooks: sftplug_recipe_loaded(recipe, origins, context) of acme (acme 1.2.3) -> None" in result.stderr
    )
    assert (
        "sftplug.hooks: sftplug_recipe_loaded(recipe, origins, context) of console (sftplug 0.1.0) -> None"
        in result.stderr
    )
