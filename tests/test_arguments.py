"""Errors speak of options to whoever runs a command, and of arguments to whoever calls a function."""

import re

import pytest
from typer.testing import CliRunner
from ways_out.advice import all_texts

import sftplug
from sftplug.cli import app
from sftplug.util.arguments import argument, commanded


def test_an_argument_has_the_name_that_its_giver_knows():
    named = [("--output",), ("--overwrite",), ("--in-place",), ("--base", "original"), ("--no-plugin", "acme")]
    in_python = ["`output`", "`overwrite=True`", "`in_place=True`", "`base='original'`", "`without=['acme']`"]
    assert [argument(*option) for option in named] == in_python
    with commanded():
        options = ["--output", "--overwrite", "--in-place", "--base original", "--no-plugin acme"]
        assert [argument(*option) for option in named] == options
    assert argument("--output") == "`output`"


def test_a_finished_run_is_refused_in_the_words_of_its_caller(recipe_file, run, tmp_path):
    file = recipe_file(adapter="lora", train={"max_steps": 1})
    output = run(file).output
    with pytest.raises(sftplug.RunError, match=r"Choose another `output`, or `overwrite=True` to delete it"):
        sftplug.train(str(file), show=False)
    said = CliRunner().invoke(app, ["train", str(file)])
    assert "Choose another --output, or --overwrite to delete it" in str(said.exception)
    with pytest.raises(sftplug.ModelError, match=r"the base is fp32, not quantized: leave out `in_place=True`\."):
        sftplug.open_run(output).merge(tmp_path / "merged", in_place=True)


def test_a_plugin_that_is_left_out_is_told_in_the_words_of_its_caller(recipe_file):
    file = recipe_file()
    with pytest.raises(sftplug.PluginError, match=r"^`without=\['acme'\]`: no plugin of that name is installed\."):
        sftplug.load(str(file), without=["acme"])
    with pytest.raises(sftplug.RecipeError, match=r"Note: blocked with `without`: masking\."):
        sftplug.load(str(file), without=["masking"])
    said = CliRunner().invoke(app, ["check", str(file), "--no-plugin", "acme"])
    assert str(said.exception).startswith("--no-plugin acme: no plugin of that name is installed.")


OPTION = re.compile(r"(?<![\w`-])--[a-z][a-z-]+")
COMMAND = re.compile(r"(^|`)sftplug [^`]*(`|$)|`accelerate [^`]*`|pip install .*")
"""What can be typed as it stands, such as `sftplug merge run --output merged`, is the same for everybody."""
STYLE = re.compile(r"var\(--|--\w+: #")
SAY_BOTH = ("sftplug/api/result.py", "sftplug/recipe/train_table.py")
OF_COMMANDS = (
    "sftplug/cli/",
    "sftplug/launch/",  # of processes that a command has started
    "sftplug/scaffold/",  # what `sftplug plugins new` refuses
)


def test_no_text_that_python_reaches_names_an_option_of_a_command():
    core = [item for item in all_texts() if item.place.startswith("sftplug/")]  # exporters name those of other programs
    texts = [item for item in core if not item.place.startswith((*OF_COMMANDS, *SAY_BOTH))]
    assert len(texts) > 1000
    named = [item for item in texts if OPTION.search(COMMAND.sub("", item.text))]
    assert [item for item in named if not STYLE.search(item.text)] == []
