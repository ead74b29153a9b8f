"""Every shipped recipe that trains a model of the Hub is proven without its weights, and the record of that is true."""

import json
from pathlib import Path

import pytest
from conftest import TINY

import sftplug
from sftplug import SftplugError
from sftplug.proving import STAGES, prove_recipe
from sftplug.proving.shapes import known_shapes, laid_over
from sftplug.recipe.find import recipes_folder
from sftplug.recipe.shipped import every_recipe

PROVEN = {recipe.name: recipe for recipe in every_recipe() if not recipe.model.startswith("built:")}
RECORD = json.loads((recipes_folder() / "proofs.json").read_text())["recipes"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where twins are trained, once for all recipes that are alike."""
    return tmp_path_factory.mktemp("proofs")


@pytest.mark.parametrize("name", PROVEN)
def test_a_recipe_is_proven_and_its_record_is_true(name, folder):
    proof = prove_recipe(PROVEN[name], folder)
    assert proof.holds, [f"{key}: {stage.text}" for key, stage in proof.stages.items() if stage.outcome == "failed"]
    known = RECORD[name]
    how = "write it anew: sftplug recipes --proof --json > recipes/proofs.json"
    assert {key: stage.outcome for key, stage in proof.stages.items()} == {
        key: stage["outcome"] for key, stage in known["stages"].items()
    }, how
    assert (proof.model, proof.parameters) == (known["model"], known["parameters"]), how
    assert proof.memory[1] == pytest.approx(known["memory"][1], rel=0.02), how


def test_the_record_names_every_recipe_and_no_other():
    assert list(RECORD) == list(PROVEN)


def test_every_family_has_a_recipe_and_most_are_proven_in_every_stage():
    families = {name.partition("/")[0] for name in PROVEN} - {"tasks"}
    assert len(families) >= 18
    assert len({RECORD[name]["architecture"] for name in PROVEN}) >= 18
    whole = [name for name in PROVEN if all(stage["outcome"] == "proven" for stage in RECORD[name]["stages"].values())]
    assert len(whole) >= 65
    # What is not proven is a template that TRL has no copy of, and nothing else.
    left = {key for name in PROVEN for key, stage in RECORD[name]["stages"].items() if stage["outcome"] != "proven"}
    assert left == {"template"}


def test_every_shape_is_that_of_a_recipe_and_says_where_it_is_from():
    trained = {recipe.model for recipe in PROVEN.values()}
    assert set(known_shapes()) == trained
    for file in (recipes_folder() / "shapes").glob("*.json"):
        assert json.loads(file.read_text())["source"]


def test_a_shape_that_is_not_shipped_or_not_known_is_not_called_proven(folder, monkeypatch):
    from dataclasses import replace

    from sftplug.proving import prove

    recipe = PROVEN["qwen3/0.6b_lora"]
    other = prove_recipe(replace(recipe, model="acme/other"), folder)
    assert {stage.outcome for stage in other.stages.values()} == {"not proven"}
    shape = replace(known_shapes()[recipe.model], architecture="qwen9", since="9.9")
    monkeypatch.setattr(prove, "known_shapes", lambda: {recipe.model: shape})
    newer = prove_recipe(recipe, folder)
    assert newer.stages["memory"].text == "transformers knows qwen9 from 9.9 on"
    assert newer.holds


@pytest.mark.parametrize(
    ("stage", "changes", "says"),
    [
        ("configuration", {"billions": 0.7}, "its makers count 0.7 billion"),
        ("configuration", {"twin": {"model_type": "llama"}}, "the twin has other modules"),
        ("template", {"template": "llama3_1"}, None),
        ("memory", {"config": {"num_hidden_layers": 56}}, "of 8 GB"),
    ],
)
def test_a_proof_fails_where_something_is_wrong(stage, changes, says, folder, monkeypatch):
    from dataclasses import replace

    from sftplug.proving import prove

    recipe = PROVEN["qwen3/0.6b_lora"]
    shape = known_shapes()[recipe.model]
    laid = {
        key: laid_over(getattr(shape, key), value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    if stage == "memory":
        recipe = replace(recipe, memory=4 * 10**9, hardware="one GPU with 4 GB.")
        says = "of 4 GB"
    monkeypatch.setattr(prove, "known_shapes", lambda: {recipe.model: replace(shape, **laid)})
    found = prove_recipe(recipe, folder, stages=[stage]).stages[stage]
    if says is None:  # another family's template trains its own replies just as well
        assert found.outcome == "proven"
        return
    assert found.outcome == "failed"
    assert says in found.text


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_is_chosen_by_memory_and_model():
    found = sftplug.recipes(memory="24GB", model="qwen3")
    assert {"qwen3/0.6b_lora", "qwen3/8b_qlora"} <= {recipe.name for recipe in found}
    assert all(recipe.memory <= 24e9 for recipe in found)
    assert all("qwen3" in (recipe.name + recipe.model).lower() for recipe in found)
    assert {recipe.devices for recipe in sftplug.recipes(memory="640GB", model="8b_full")} == {8}
    assert len(sftplug.recipes()) > len(sftplug.recipes(memory="80GB")) > len(found)


def test_what_is_listed_says_model_adapter_and_hardware():
    known = {recipe.name: recipe for recipe in sftplug.recipes()}
    one = known["qwen3/8b_qlora"]
    assert (one.model, one.adapter, one.quantization, one.in_short()) == ("Qwen/Qwen3-8B", "qlora", "nf4", "24 GB")
    assert known["quickstart"].in_short() == "CPU"
    assert known["quickstart"].model == "built: smollm2"
    assert known["llama3.1/70b_lora"].in_short() == "8 x 80 GB"
    assert known["smollm2/base"].source.startswith("plugin smollm2")


def test_the_command_lists_chooses_and_prints_json(command):
    listed = command("recipes", "--memory", "24GB", "--model", "Qwen3")
    assert listed.exit_code == 0, listed.exception
    assert "qwen3/8b_qlora" in listed.stdout
    assert "llama" not in listed.stdout
    assert "launch/" not in listed.stdout
    told = json.loads(command("recipes", "--memory", "24GB", "--model", "qwen3", "--json").stdout)
    assert [entry["name"] for entry in told] == [recipe.name for recipe in sftplug.recipes("24GB", "qwen3")]
    assert told[0]["memory"] == told[0]["devices"] * int(told[0]["hardware"].split("with ")[1].split()[0]) * 10**9


def test_what_leaves_nothing_says_what_there_is(command):
    with pytest.raises(SftplugError, match=r"Did you mean 'qwen3'\? There are: deepseek, gemma3,"):
        sftplug.recipes(model="qwne3")
    with pytest.raises(SftplugError, match="70b_qlora needs the least: one GPU with 48 GB"):
        sftplug.recipes(memory="24GB", model="70b")
    with pytest.raises(SftplugError, match="They name no GPU"):
        sftplug.recipes(memory="24GB", model="lessons")
    refused = command("recipes", "--memory", "24GB", "show", "quickstart")
    assert refused.exit_code == 2
    assert "--memory: it is for the list, not for `show`." in " ".join(refused.output.split())


def test_the_command_proves_what_is_listed(command):
    proven = command("recipes", "--proof", "--model", "0.6b_qlora")
    assert proven.exit_code == 0, proven.output
    line = next(line for line in proven.stdout.splitlines() if line.startswith("qwen3/0.6b_qlora"))
    assert line.count("✓") == len(STAGES)
    record = json.loads(command("recipes", "--proof", "--model", "smollm2/135m", "--json").stdout)
    assert record["recipes"]["smollm2/135m_full"]["stages"]["training"]["outcome"] == "proven"


# --- the builder that twins are made by -------------------------------------------------------------------------------


def test_a_model_of_any_architecture_is_built_with_random_weights(recipe_file, run):
    config = {"model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    file = recipe_file(model={"build": {"type": "random", "config": config, "vocab_size": 400}})
    assert run(file).loss > 0
    told = json.loads((Path(sftplug.load(file).recipe.output) / "config.json").read_text())
    assert told["model_type"] == "gemma3_text"
    assert told["hidden_size"] == 32


def test_a_configuration_that_makes_no_model_is_refused_in_words(recipe_file, run):
    file = recipe_file(model={"build": {"type": "random", "config": {"model_type": "qwen9"}}})
    with pytest.raises(SftplugError, match="`config` makes no model: ValueError: Unrecognized model identifier: qwen9"):
        run(file)


def test_a_built_tokenizer_has_the_control_tokens_and_the_template_that_are_asked_for(tmp_path):
    from transformers import AutoTokenizer

    from sftplug_tiny.random import Random

    tokens = ["<|user|>", "<|end|>"]
    small = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    asked = {"control_tokens": tokens, "eos_token": "<|end|>", "bos_token": "<s>", "chat_template": "{{ bos_token }}"}
    Random(config=small, **asked).build(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert [len(tokenizer(token)["input_ids"]) for token in tokens] == [1, 1]
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|end|>", "<s>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "<s>"
    assert TINY["type"] == "tiny"  # the other builder of the package


@pytest.mark.parametrize(
    ("family", "named", "made"),
    [
        ("qwen3_5", [], "Qwen3_5ForCausalLM"),
        ("qwen3_5", ["Qwen3_5ForConditionalGeneration"], "Qwen3_5ForConditionalGeneration"),
        ("mistral3", [], "Mistral3ForConditionalGeneration"),
    ],
)
def test_a_model_of_images_is_built_where_its_configuration_says_so_or_there_is_no_other(family, named, made, tmp_path):
    from sftplug_tiny.random import Random

    twin = next(shape.twin for shape in known_shapes().values() if shape.architecture == family)
    Random(config={**twin, "architectures": named}).build(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [made]
