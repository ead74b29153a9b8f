"""The command line as a user drives it."""

import json
import shutil
import subprocess
import sys

import pytest
import rich
from datasets import load_from_disk
from typer.testing import CliRunner

from sftplug import ModelError, RecipeError, RunDirectory, RunError, cli
from sftplug.cli import app

runner = CliRunner()
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "numpy")


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "sftplug", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_check_passes_a_good_recipe(recipe_file):
    result = runner.invoke(app, ["check", str(recipe_file())])
    assert result.exit_code == 0, result.output
    assert "everything that can be known without weights is right" in result.output


def test_check_shows_every_problem_of_the_recipe_and_exits_2_without_a_traceback(recipe_file):
    result = run("check", recipe_file(), "train.learning_rat=1", "adapter.rr=2")
    assert result.returncode == 2
    assert "2 problems" in result.stderr
    assert "train.learning_rat (command line): unknown option" in result.stderr
    assert "Did you mean 'learning_rate'?" in result.stderr
    assert "adapter.rr (command line): unknown key." in result.stderr
    assert "Traceback" not in result.stderr
    verbose = run("check", recipe_file(), "train.learning_rat=1", "-v").stderr
    assert "Traceback" in verbose
    assert verbose.count("Did you mean 'learning_rate'?") == 1


def test_check_finds_what_needs_tokenizer_rows_and_modules_all_at_once(recipe_file):
    file = recipe_file(
        adapter={"type": "lora", "targets": ["q_porj"]},
        data=[{"messages": [{"role": "user", "content": "alone"}]}],
    )
    result = runner.invoke(app, ["check", str(file)])
    assert isinstance(result.exception, ModelError)
    assert "target 'q_porj' matches no module" in str(result.exception)
    assert "has no assistant turn" in str(result.exception)


def test_prepare_writes_what_the_trainer_gets(recipe_file, prepared, tmp_path):
    file, output = recipe_file(), tmp_path / "prepared"
    result = runner.invoke(app, ["prepare", str(file), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert load_from_disk(str(output / "train"))[:] == prepared(file).train[:]
    assert json.loads((output / "ledger.json").read_text())["splits"]["train"][0]["kept"] == 24
    again = runner.invoke(app, ["prepare", str(file), "--output", str(output)])
    assert isinstance(again.exception, RunError)
    assert "is not an empty folder" in str(again.exception)
    onto = runner.invoke(app, ["prepare", str(file), "--output", str(file / "x")])
    assert str(onto.exception).startswith(f"the output folder {file / 'x'} cannot be written: {file} is a file.")


def test_on_a_narrow_terminal_rows_are_lines(recipe_file):
    rich.reconfigure(width=40)
    try:
        result = runner.invoke(app, ["check", str(recipe_file())])
    finally:
        rich.reconfigure()
    assert "\nsplit train\nsource rows.jsonl\nrows 24\n" in result.output


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_train_tells_the_story_of_the_run(recipe_file, tmp_path):
    callbacks = [{"type": "samples", "prompts": ["Question 3: red or blue?"], "max_new_tokens": 4}]
    file = recipe_file(adapter="lora", callbacks=callbacks)
    result = runner.invoke(app, ["train", str(file), "--output", str(tmp_path / "elsewhere")])
    assert result.exit_code == 0, result.output
    for said in (
        "lora",
        "rows.jsonl",
        "stops learned: <|im_end|> (24 turns)",
        "lora on fp32",
        "full in fp32",
        "loss",
        "saved in",
    ):
        assert said in result.output, said
    assert "q_proj (2)" in " ".join(result.output.split())
    before, after = RunDirectory.open(tmp_path / "elsewhere").samples()
    assert before["prompt"] == after["prompt"] == "Question 3: red or blue?"
    assert (before["step"], after["step"]) == (0, 4)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("adapter={type: lora, targets: [q_porj]}", "adapter: target 'q_porj' matches no module"),
        ("adapter={type: lora, exclude: ['*vision*']}", "adapter: `exclude: *vision*` matches no module of the model."),
        ("adapter={type: freeze, train: ['*.layrs.1.*']}", "no parameter. Did you mean '*.layers.1.*'? One is called"),
        ("train.fp16=true", "train.fp16: CPUs do not train in fp16"),
        ("train.load_best_model_at_end=true", "train: --load_best_model_at_end requires the save and eval strategy"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_row_is_read(recipe_file, override, text):
    for command in ("train", "check"):
        result = runner.invoke(app, [command, str(recipe_file(data=[])), override])
        assert isinstance(result.exception, ModelError)
        assert text in str(result.exception)
        assert ("holds no rows" in str(result.exception)) == (command == "check")


def test_train_prints_nothing_that_is_not_ours(recipe_file):
    result = run("train", recipe_file(adapter="lora", quantization="nf4"), "train.learning_rate=2e-4")
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == ""
    for noise in ("Warning", "warning", "Loading weights", "{'loss'", "gemm_4bit"):
        assert noise not in result.stdout
    steps = result.stdout[result.stdout.index("step 1/") : result.stdout.index("loss\n")]
    assert "\n\n" not in steps


def test_a_model_without_padding_or_eos_trains_in_silence(recipe_file, tmp_path):
    from sftplug.model.loading import base_model_path
    from sftplug.recipe import load_recipe

    model = tmp_path / "bare"
    shutil.copytree(base_model_path(load_recipe(str(recipe_file())).recipe), model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    bare = {key: value for key, value in config.items() if key not in ("eos_token", "pad_token")}
    (model / "tokenizer_config.json").write_text(json.dumps(bare))
    text = "{path: text.jsonl, format: text}"
    (tmp_path / "text.jsonl").write_text('{"text": "Rain falls."}\n' * 4 + '{"text": "It rains."}\n')
    file = recipe_file(model=str(model), masking="all", data=None)
    result = run("train", file, f"data.train={text}", "train.learning_rate=2e-5", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == ""


def test_a_blocked_plugin_is_not_there(recipe_file):
    result = runner.invoke(app, ["check", str(recipe_file()), "--no-plugin", "masking"])
    assert isinstance(result.exception, RecipeError)
    assert (
        "masking (recipe.yaml:1): no installed plugin offers any Masking. Note: blocked with --no-plugin: masking."
        in str(result.exception)
    )
    quiet = runner.invoke(app, ["check", str(recipe_file()), "--no-plugin", "console"])
    assert quiet.exit_code == 0
    assert "template" not in quiet.output


def test_plugins_lists_what_each_offers():
    result = runner.invoke(app, ["plugins"], terminal_width=200)
    assert result.exit_code == 0
    for word in ("adapters", "qlora", "quantization", "nf4", "formats", "sharegpt", "sftplug_masking"):
        assert word in result.output
    blocked = runner.invoke(app, ["plugins", "--no-plugin", "quantization"], terminal_width=200)
    assert "adapters" in blocked.output
    assert "sftplug_quantization" not in blocked.output


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins"], ["recipes"], ["check", "quickstart", "train.learning_rat=1"]]
)
def test_quick_commands_load_no_heavy_library(arguments):
    code = (
        "import sys\nfrom sftplug.cli import main\n"
        f"sys.argv = ['sftplug', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in result.stdout


def test_an_unexpected_error_is_short_and_says_how_to_see_more(monkeypatch, capsys):
    def fail():
        raise KeyError("nothing")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["sftplug", "plugins"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("sftplug failed: KeyError: 'nothing'\n")
    assert "-v" in said
    assert len(said.splitlines()) == 2
    monkeypatch.setattr(sys, "argv", ["sftplug", "plugins", "-v"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.endswith("\nKeyError: 'nothing'\n")


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback():
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'sftplug.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from sftplug.__main__ import main\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


def test_version():
    assert runner.invoke(app, ["--version"]).output.startswith("sftplug 0.1")


def test_a_mask_that_fails_its_check_is_shown_and_stops_the_run(recipe_file, tmp_path):
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    result = run("train", recipe_file(chat_template={"file": "t.jinja"}))
    assert result.returncode == 2
    assert "24 of 24 rows of" in result.stderr
    first = "rows.jsonl:1, rows.jsonl:2, rows.jsonl:3"
    assert f"  24 rows ({first}, …): message 1: no token marks its end" in result.stderr
    assert result.stderr.count("no token marks its end") == 1
    assert "    Way out: `chat_template: chatml` renders them (tried on 20 of these rows), or `spans" in result.stderr
    assert "user: Question 0: gold or gold?⏎\nassistant: It is red." in result.stderr
    run_ = RunDirectory.open(tmp_path / "out")
    assert run_.state().state == "failed"
    assert "24 of 24 rows of" in run_.state().reason
    assert not list(run_.path.glob("*.safetensors"))
