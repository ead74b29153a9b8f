"""An adapter is trained on, or made part of the weights beside which a new one is trained."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

import sftplug
from sftplug import ModelError, RunDirectory

STILL = {"max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "logging_steps": 1}
"""One update, at a rate of 0: what is saved is what was begun with."""


def held(folder):
    return load_file(folder / "adapter_model.safetensors")


def first_loss(output):
    return next(line["loss"] for line in RunDirectory(output).metrics() if "loss" in line)


def test_it_is_trained_on_with_its_own_weights_and_template(lora_run, recipe_file, command, tmp_path):
    file = recipe_file(model=str(lora_run), adapter="lora", chat_template="tokenizer", train=STILL)
    result = command("train", file)
    assert result.exit_code == 0, result.exception
    said = " ".join(result.output.split())
    assert "with the adapter of" in said
    assert "trained on" in said
    before, after = held(lora_run), held(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in before)
    recorded = RunDirectory(tmp_path / "out").recipe()["model"]
    base = json.loads((lora_run / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert (recorded["name_or_path"], recorded["adapter"]) == (base, str(lora_run))
    ends = [(folder / "generation_config.json").read_text() for folder in (lora_run, tmp_path / "out")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_merged_it_says_the_same_and_a_new_one_begins(kind, request, recipe_file, run, tmp_path):
    first = request.getfixturevalue(f"{kind}_run")
    file = recipe_file(model=str(first), adapter="lora", quantization="fp32", train=STILL)
    run(file)
    merged = tmp_path / "merged"
    run(file, "model.merge_adapter=true", f"output={merged}", "adapter.r=2")
    weights = held(merged)
    assert all(not weight.any() for name, weight in weights.items() if "lora_B" in name)
    # What a quantized base rounds is in the weights of both runs, but for the one that trains on in 32 bits.
    assert first_loss(merged) == pytest.approx(first_loss(tmp_path / "out"), abs=1e-4 if kind == "lora" else 0.1)
    record = sftplug.open_run(merged).merge(tmp_path / "whole")
    assert record["difference"]["relative"] < 1e-4


def test_what_differs_is_said_with_the_value_to_set(lora_run, recipe_file, run):
    file = recipe_file(model=str(lora_run), adapter={"type": "lora", "r": 4, "alpha": 8}, train=STILL)
    with pytest.raises(ModelError) as caught:
        run(file)
    assert "`r` is 16, and 4 in the recipe, `alpha` is 32.0, and 8.0 in the recipe." in str(caught.value)
    assert "set `adapter.r: 16` and `adapter.alpha: 32.0`. `model.merge_adapter: true`" in str(caught.value)


def test_an_adapter_of_plain_peft_is_trained_on_too(lora_run, recipe_file, run, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(lora_run / name, plain)
    run(recipe_file(model="./plain", adapter="lora", train=STILL))
    before, after = held(plain), held(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ModelError, match=r"`lora_alpha` is 32.0, and 4.0 in the recipe"):
        run(recipe_file(model="./plain", adapter={"type": "lora", "alpha": 4}, train=STILL))


def test_what_inference_does_not_need_is_asked_of_a_checkpoint(recipe_file, run, tmp_path):
    prompt = {"type": "p_tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 16}
    first = tmp_path / "first"
    train = {**STILL, "max_steps": 3, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 3}
    run(recipe_file(adapter=prompt, train=train), f"output={first}")
    with pytest.raises(ModelError, match=re.escape("as in `model: RUN/checkpoint-50`")):
        run(recipe_file(model=str(first), adapter=prompt, train=STILL))
    run(recipe_file(model=str(first / "checkpoint-3"), adapter=prompt, train=STILL))
    assert torch.equal(held(first)["prompt_embeddings"], held(tmp_path / "out")["prompt_embeddings"])


def test_a_folder_that_is_none_is_said(recipe_file, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(sftplug.RecipeError, match=r"none holds no adapter: there is no adapter_config\.json"):
        sftplug.load(recipe_file(model={"adapter": "./none"}, adapter="lora"))
