"""Every shipped recipe is valid, opens with what a user needs to know, and can be copied and used elsewhere."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from sftplug.cli import app
from sftplug.recipe import load_recipe, shipped_recipes
from sftplug.recipe.yaml import read_yaml
from sftplug_tiny.make_data import files, render

RECIPES = shipped_recipes()


def test_the_recipes_that_are_promised_are_there():
    assert len(RECIPES) >= 100
    promised = {"quickstart", "quickstart_tiny", "qwen3/0.6b_qlora", "llama3.1/70b_qlora", "tasks/tool_calling"}
    assert promised | {"tasks/mixed"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_opens_with_purpose_hardware_and_command(name):
    loaded = load_recipe(name)
    assert loaded.recipe.output == f"runs/{Path(name).name}"
    head = RECIPES[name].read_text().splitlines()[:6]
    assert head[0].startswith("# ")
    assert head[0].endswith(".")
    assert head[2].startswith("# Hardware: ")
    assert head[4] == f"#   sftplug train {name}"
    # The schema is one file for all, written on installation: an editor finds it by the path from the recipe.
    (line,) = [line for line in RECIPES[name].read_text().splitlines() if "yaml-language-server" in line]
    schema = RECIPES[name].parent / line.removeprefix("# yaml-language-server: $schema=")
    assert schema.resolve() == RECIPES["quickstart"].parent / "recipe.schema.json"


def test_a_recipe_on_other_data_keeps_nothing_of_the_old_datasets_options():
    source = load_recipe("qwen3/8b_qlora").recipe.data.train[0].source
    assert (source.hub, source.config, source.split) == ("HuggingFaceH4/ultrachat_200k", None, "train_sft")


@pytest.mark.parametrize("name", [name for name in RECIPES if "full" in name])
def test_whole_weights_are_trained_in_32_bits(name):
    """In 16 bits, an update of a learning rate of 1e-5 is smaller than what tells two weights apart."""
    assert load_recipe(name).recipe.quantization.type == "fp32"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_the_adapter_for_gemma_3_leaves_the_vision_tower_alone():
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, Gemma3Config

    adapter = load_recipe("gemma3/4b_lora").recipe.adapter
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": 300, "num_key_value_heads": 2, "head_dim": 32}
    config = Gemma3Config(text_config=text, vision_config={**small, "image_size": 28, "patch_size": 14})
    model = AutoModelForCausalLM.from_config(config)
    assert list(adapter.check_model(model)) == []
    trained = [
        name for name, weight in get_peft_model(model, adapter.peft_config()).named_parameters() if weight.requires_grad
    ]
    assert len(trained) == 2 * 2 * 7
    assert not [name for name in trained if "vision" in name]


def test_lists_shows_and_copies(tmp_path):
    runner = CliRunner()
    listed = runner.invoke(app, ["recipes"])
    assert "qwen3/0.6b_qlora" in listed.output
    assert runner.invoke(app, ["recipes", "show", "quickstart"]).output == RECIPES["quickstart"].read_text()
    copied = runner.invoke(app, ["recipes", "copy", "lessons/4_qlora", str(tmp_path)])
    assert copied.exit_code == 0, copied.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "4_qlora.yaml",
        "3_lora.yaml",
        "2_sft.yaml",
        "quickstart_tiny.yaml",
        "countries_train.jsonl",
        "countries_eval.jsonl",
        "world.jsonl",
        "recipe.schema.json",
    }
    schema = Draft202012Validator(json.loads((tmp_path / "recipe.schema.json").read_text()))
    for recipe in tmp_path.glob("*.yaml"):
        assert "\n# yaml-language-server: $schema=recipe.schema.json\n" in recipe.read_text()
        assert list(schema.iter_errors(read_yaml(recipe).data)) == []
    loaded = load_recipe(str(tmp_path / "4_qlora.yaml"))
    assert loaded.recipe.data.train[0].source.label() == str(tmp_path / "countries_train.jsonl")
    again = runner.invoke(app, ["recipes", "copy", "quickstart_tiny", str(tmp_path)])
    assert "exists already. Choose another folder." in str(again.exception)


ROWS = [{"path": "rows.jsonl", "format": "messages"}]
UNTRAINED = {"type": "tiny", "pretrain_steps": 0}
# So many that `data.eval_fraction: 0.01` of them is some.
MANY = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes"}]} for n in range(500)
]


@pytest.mark.parametrize("name", RECIPES)
def test_a_copied_recipe_is_the_same_in_an_empty_folder(name, tmp_path, monkeypatch):
    mine = _copy(name, tmp_path / "mine", monkeypatch)
    loaded = load_recipe(mine)
    assert _told(loaded) == _told(load_recipe(name))
    assert str(RECIPES["quickstart"].parent) not in str(loaded.recipe), "it reads what is shipped"


@pytest.mark.parametrize("name", ["quickstart_tiny", "qwen3/8b_qlora", "tasks/tool_calling"])
def test_a_copied_recipe_passes_check_in_an_empty_folder(name, tmp_path, monkeypatch):
    mine = _copy(name, tmp_path / "mine", monkeypatch)
    checked = CliRunner().invoke(app, ["check", mine, *_without_the_hub(load_recipe(mine).recipe)])
    assert checked.exit_code == 0, checked.exception or checked.output


def _copy(name, folder, monkeypatch):
    """Copy a recipe to a new folder, go there, and return the name of its file."""
    copied = CliRunner().invoke(app, ["recipes", "copy", name, str(folder)])
    assert copied.exit_code == 0, copied.exception
    files = copied.output.split()
    assert len(set(files)) == len(files) == len(list(folder.iterdir()))
    monkeypatch.chdir(folder)
    return f"{Path(name).name}.yaml"


def _told(loaded):
    """Return what a recipe says, with the names alone of the files it names."""
    return re.sub(r"/[^\s'\"]*/", "", loaded.recipe.model_dump_json())


def _without_the_hub(recipe):
    """Return overrides that replace what a test cannot have: weights, 4-bit weights, and rows of the Hub."""
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MANY))
    remote = [
        where for where in ("train", "eval") if any("hub" in part.source.type for part in getattr(recipe.data, where))
    ]
    other = {"model": {"build": UNTRAINED}, "quantization": "fp32", "adapter": "lora", "chat_template": "chatml"}
    other |= {f"data.{where}": ROWS for where in remote}
    return [f"{key}={json.dumps(value)}" for key, value in other.items()]


def test_launch_scripts_are_listed_shown_and_copied(tmp_path):
    runner, folder = CliRunner(), RECIPES["quickstart"].parent / "launch"
    listed = runner.invoke(app, ["recipes"]).output
    for script in folder.iterdir():
        name = f"launch/{script.name}"
        assert name in listed
        assert runner.invoke(app, ["recipes", "show", name]).output == script.read_text()
        assert runner.invoke(app, ["recipes", "copy", name, str(tmp_path)]).output.split() == [
            str(tmp_path / script.name)
        ]
        assert (tmp_path / script.name).stat().st_mode == script.stat().st_mode
    assert runner.invoke(app, ["recipes", "copy", "launch/slurm.sbatch", str(tmp_path / "mine.sbatch")]).exit_code == 0
    wrong = runner.invoke(app, ["recipes", "copy", "launch/torchrn.sh", str(tmp_path)])
    assert "Did you mean 'launch/torchrun.sh'?" in str(wrong.exception)
    assert not list(tmp_path.glob("*.json"))


def test_the_identity_rows_ask_in_other_words_than_those_held_out():
    folder = RECIPES["quickstart"].parent / "data"
    asked = {}
    for name in ("identity_train", "identity_eval"):
        rows = [json.loads(line)["messages"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        asked[name] = [row[0]["content"] for row in rows]
        named = [row for row in rows if "Nimbrel" in row[1]["content"]]
        assert len(named) == {"identity_train": 66, "identity_eval": 10}[name]
    assert (len(asked["identity_train"]), len(asked["identity_eval"])) == (80, 10)
    words = [re.sub(r"\W+", " ", question.lower()).strip() for questions in asked.values() for question in questions]
    assert len(set(words)) == len(words)
    shown = load_recipe("quickstart").recipe.callbacks[0].prompts
    assert len(set(shown) & set(asked["identity_eval"])) == 3
    assert not set(shown) & set(asked["identity_train"])


def test_the_shipped_data_is_what_the_script_writes():
    folder = RECIPES["quickstart"].parent / "data"
    made = files()
    assert {path.name for path in folder.iterdir()} == {*made, "identity_train.jsonl", "identity_eval.jsonl"}
    for name, rows in made.items():
        assert (folder / name).read_text() == render(rows), f"{name}: run python -m sftplug_tiny.make_data {folder}"
    assert len(made["countries_train.jsonl"]) > 300
