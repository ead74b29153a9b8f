"""What one does with a finished run needs only the components that it uses."""

import json

import pytest
import typer
from conftest import train_run

import sftplug
from sftplug import PluginError, RecipeError
from sftplug.cli import app

MASK = """import sftplug

class Gain(sftplug.Masking):
    \"\"\"Weigh by a factor.\"\"\"
    type: str = "gain"
    {name}: float = 2.0
    def weights(self, tokens):
        return tokens.trainable * self.{name}

@sftplug.hookimpl
def sftplug_maskings():
    return [Gain]
"""


@pytest.fixture(scope="session")
def changed(tmp_path_factory):
    """A run whose masking strategy has lost the option that it was trained with."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "gain.py").write_text(MASK.format(name="gain"))
    masking = {"type": "gain", "gain": 3.0}
    run = train_run(folder, "run", plugins=["./gain.py"], masking=masking, quantization="fp32", adapter="lora")
    (run / "plugins" / "gain.py").write_text(MASK.format(name="factor"))
    return run


def test_merge_chat_and_report_do_without_a_masking_that_has_changed(changed, command, tmp_path):
    result = command("merge", changed, "--output", tmp_path / "merged")
    assert result.exit_code == 0, result.exception
    assert "warning: masking" in result.output
    assert "The run was trained with it; this command does without." in result.output
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "gain: 3.0" in card  # what it was trained with, and not what stood in
    assert command("chat", changed, "--prompt", "Hello?", "--max-new-tokens", 4).exit_code == 0
    assert command("report", changed, "--html", tmp_path / "report.html").exit_code == 0
    assert sftplug.open_run(changed).chat("Hello?", max_new_tokens=4) is not None


def test_an_evaluation_needs_it_and_says_so(changed, command):
    error = command("eval", changed).exception
    assert isinstance(error, RecipeError)
    assert "masking" in str(error)
    assert "gain" in str(error)


# --- --no-plugin ------------------------------------------------------------------------------------------------------


def test_every_command_takes_no_plugin():
    commands = typer.main.get_command(app).commands
    words = {
        name: [option.help for option in command.params if "--no-plugin" in option.opts]
        for name, command in commands.items()
    }
    assert [name for name, found in words.items() if not found] == []
    assert {text for found in words.values() for text in found} == {"Do not load this plugin."}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run whose masking strategy came from a plugin file that cannot be loaded any more."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "gain.py").write_text(MASK.format(name="gain"))
    run = train_run(folder, "run", plugins=["./gain.py"], masking="gain", quantization="fp32", adapter="lora")
    (run / "plugins" / "gain.py").write_text("raise ImportError('gone')")
    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "--output", "new"),
        ("chat", "--prompt", "Hello?", "--max-new-tokens", 4),
        ("export", "folder", "--output", "exported"),
        ("report", "--html", "report.html"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_plugin_that_is_not_needed_is_left_out(arguments, broken, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    if name != "report":  # which tells in the page why there are no rows
        assert "gone" in str(command(name, broken, *rest).exception)
    result = command(name, broken, *rest, "--no-plugin", "gain")
    assert result.exit_code == 0, result.exception
    if name != "report":
        assert "warning: masking[0][0] (recipe.yaml:" in result.output
        assert "blocked with --no-plugin: gain. The run was trained with it; this command does" in result.output
    else:
        page = (tmp_path / "report.html").read_text()
        assert "They cannot be drawn" in page
        assert "blocked with --no-plugin: gain" in page


@pytest.mark.parametrize("arguments", [("eval",), ("replay", "--output", "rows")], ids=lambda arguments: arguments[0])
def test_a_command_that_needs_it_names_the_key_and_the_plugin(arguments, broken, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *rest = arguments
    error = command(name, broken, *rest, "--no-plugin", "gain").exception
    assert isinstance(error, RecipeError)
    (problem,) = error.problems
    assert problem.path == "masking[0][0]"
    assert problem.text.startswith("'gain' is not installed.")
    assert problem.text.endswith("Note: blocked with --no-plugin: gain.")


def test_python_leaves_plugins_out_too(broken, tmp_path):
    run = sftplug.open_run(broken, without=["gain"])
    assert [problem.path for problem in run.left_out] == ["masking[0][0]"]
    assert run.chat("Hello?", max_new_tokens=4) is not None
    assert json.loads((run.export("folder", tmp_path / "there") / "adapter_config.json").read_text())["peft_type"]
    for needs in (run.evaluate, run.replay, lambda: sftplug.replay(broken, without=["gain"])):
        with pytest.raises(RecipeError, match=r"blocked with `without`: gain"):
            needs()
    assert "blocked with `without`: gain" in run.report()
    with pytest.raises(ValueError, match=r"give `without` to `load`"):
        sftplug.open_run(run.recipe, without=["gain"])
    quiet = sftplug.load(broken.parent / "run.yaml", f"output={broken}", without=["console"])
    assert sftplug.open_run(quiet).recipe.asked.blocked == ("console",)
    assert sftplug.open_run(broken, without=["console", "gain"]).recipe.asked.blocked == ("console", "gain")


@pytest.mark.parametrize("name", ["chat", "eval", "merge", "export", "replay", "report", "recipes"])
def test_a_name_that_no_plugin_has_is_refused(name, lora_run, command, tmp_path):
    rest = {"merge": ["--output", tmp_path / "m"], "export": ["zip"], "replay": ["--output", tmp_path / "r"]}
    run = [] if name == "recipes" else [lora_run]
    error = command(name, *run, *rest.get(name, []), "--no-plugin", "consol").exception
    assert isinstance(error, PluginError)
    assert "--no-plugin consol: no plugin of that name is installed. Did you mean 'console'?" in str(error)


def test_recipes_of_a_plugin_that_is_left_out_are_not_there(command, recipe_file):
    assert "smollm2/base" in command("recipes").output
    assert "smollm2/base" not in command("recipes", "--no-plugin", "smollm2").output
    for left_out in (
        command("recipes", "--no-plugin", "smollm2", "show", "smollm2/base"),
        command("check", recipe_file(extends="smollm2/base"), "--no-plugin", "smollm2"),
    ):
        assert "Note: blocked with --no-plugin: smollm2." in str(left_out.exception)
    own = recipe_file(plugins=["./mine.py"])
    (own.parent / "mine.py").write_text("raise ImportError('gone')")
    assert command("check", own, "--no-plugin", "mine").exit_code == 0  # a file's name is no installed one
