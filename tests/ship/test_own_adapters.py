"""An adapter that is no type of PEFT is trained, saved, loaded, merged and resumed like any other, or refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import train_run
from run.test_held import killed_after
from run.test_readback import BREAKS
from safetensors.torch import load_file
from ship.test_load import code_of_card, load_elsewhere

import sftplug
from sftplug import ModelError, RunDirectory
from sftplug.training.preflight.notices import notices

SCALE = (Path(__file__).parents[1] / "third_party" / "acme_scale.py").read_text()
MORE = """
import torch

class Own(Scale):
    \"\"\"One that says what is right.\"\"\"

class Forgetful(Own):
    \"\"\"One that saves half of what it trains, and does not look when it loads it.\"\"\"
    type: str = "forgetful"
    def save(self, model, folder):
        from safetensors.torch import save_file
        kept = {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith("scale")}
        save_file(kept, folder / "adapter.safetensors")
    def load(self, model, folder):
        from safetensors.torch import load_file
        self.prepare_model(model)
        model.load_state_dict(load_file(folder / "adapter.safetensors"), strict=False)

class Misread(Own):
    \"\"\"One whose card does something else.\"\"\"
    type: str = "misread"
    def loading_code(self):
        return "model.eval()"

class Failing(Own):
    \"\"\"One whose card does not run.\"\"\"
    type: str = "failing"
    def loading_code(self):
        return "model.no_such_thing()"

class Whole(Adapter):
    \"\"\"One that says that it trains the base, and brings parameters of its own.\"\"\"
    type: str = "whole"
    trains_base = True
    peft_config, prepare_model = Scale.peft_config, Scale.prepare_model

class Hidden(Adapter):
    \"\"\"One that trains the base, and changes what it computes.\"\"\"
    type: str = "hidden"
    trains_base = True
    def peft_config(self):
        return None
    def prepare_model(self, model):
        model.model.norm.register_forward_hook(lambda module, x, y: 2 * y)

class Idle(Own):
    \"\"\"One that trains nothing.\"\"\"
    type: str = "idle"
    def prepare_model(self, model):
        model.requires_grad_(False)

class IdleOnes(Idle):
    \"\"\"One that trains nothing, which is not known before the weights are there.\"\"\"
    type: str = "idle_ones"
    def prepare_model(self, model):
        model.requires_grad_(False)
        assert not next(model.parameters()).is_meta

class Secretive(Own):
    \"\"\"One that trains the base, and says that it does not.\"\"\"
    type: str = "secretive"
    def prepare_model(self, model):
        pass

class Importing(Own):
    \"\"\"One whose card needs sftplug.\"\"\"
    type: str = "importing"
    def loading_code(self):
        return "from sftplug import require"

@hookimpl
def sftplug_adapters():
    return [Scale, Forgetful, Misread, Failing, Whole, Hidden, Idle, IdleOnes, Secretive, Importing]
"""
TRAIN = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 0.1, "logging_steps": 1}
SAVES = {**TRAIN, "save_strategy": "steps", "save_steps": 3, "save_total_limit": 0}


@pytest.fixture(scope="session")
def scale_run(tmp_path_factory):
    """A run of the stranger's adapter."""
    folder = tmp_path_factory.mktemp("scale")
    (folder / "acme_scale.py").write_text(SCALE)
    return train_run(folder, "scale", plugins=["./acme_scale.py"], adapter="acme_scale", quantization="fp32")


@pytest.fixture
def own_file(recipe_file, tmp_path):
    """Return a function that writes a recipe with an adapter of those above."""
    (tmp_path / "own.py").write_text(SCALE.partition("\n\n\n@hookimpl")[0] + MORE)

    def write(adapter, **sections):
        return recipe_file(**{"plugins": ["./own.py"], "adapter": adapter, "train": SAVES, **sections})

    return write


def by_hand(run):
    """Return the model, with the factors and shifts that were saved made part of its layers by hand."""
    from transformers import AutoModelForCausalLM

    known = json.loads((run / "sftplug_adapter.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(known["base_model_name_or_path"], dtype=torch.float32).eval()
    trained = load_file(run / "adapter.safetensors")
    for name in {name.rpartition(".")[0] for name in trained}:
        module = model.get_submodule(name)
        module.weight.data *= trained[f"{name}.scale"][:, None]
        module.bias = torch.nn.Parameter(trained[f"{name}.shift"])
    return model


# --- what comes of a run ----------------------------------------------------------------------------------------------


def test_what_is_saved_is_small_and_says_whose_it_is(scale_run):
    known = json.loads((scale_run / "sftplug_adapter.json").read_text())
    assert (known["adapter_type"], known["options"]) == ("acme_scale", {})
    assert Path(known["base_model_name_or_path"]).is_dir()
    assert not list(scale_run.glob("model*.safetensors"))
    trained = load_file(scale_run / "adapter.safetensors")
    assert {name.rpartition(".")[2] for name in trained} == {"scale", "shift"}
    assert any(float((tensor - 1).abs().max()) > 0.05 for name, tensor in trained.items() if name.endswith("scale"))


def test_an_evaluation_is_of_what_was_trained(scale_run, command):
    result = command("eval", scale_run, "--json")
    assert result.exit_code == 0, result.exception
    held_out = sftplug.prepare(sftplug.load(scale_run / "recipe.yaml")).eval
    losses, model = [], by_hand(scale_run)
    for row in held_out:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        wanted = torch.tensor(row["labels"])[1:]
        losses += torch.nn.functional.cross_entropy(logits, wanted, reduction="none")[wanted != -100].tolist()
    assert json.loads(result.output)["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_the_card_s_code_loads_it_without_sftplug(scale_run, tmp_path):
    loaded, _ = load_elsewhere(scale_run, scale_run, tmp_path)
    from ship.test_load import trained_rows

    with torch.no_grad():
        expected = by_hand(scale_run)(torch.tensor([trained_rows(scale_run)[0]["input_ids"]])).logits
    assert float((loaded - expected).abs().max()) < 1e-5
    assert "sftplug_adapter.json" in code_of_card(scale_run)


def test_it_is_merged_and_plain_transformers_loads_the_result(scale_run, command, tmp_path):
    result = command("merge", scale_run, "--output", tmp_path / "merged", "--json")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["difference"]["relative"] < 1e-5
    loaded, _ = load_elsewhere(tmp_path / "merged", scale_run, tmp_path)
    from ship.test_load import in_memory

    assert float((loaded - in_memory(scale_run)).abs().max()) < 1e-4


def test_it_is_talked_to_with_its_base_beside(scale_run, command):
    question = ("--prompt", "Question 3: red or gold?", "--max-new-tokens", 8, "--compare-base", "--json")
    told = json.loads(command("chat", scale_run, *question).output)
    assert told["base"] != told["answer"]


def test_it_resumes_to_the_same_bits(own_file, run, tmp_path):
    file = own_file("acme_scale")
    output = run(file).output
    first, metrics = load_file(output / "adapter.safetensors"), losses(output)
    assert not list((output / "checkpoint-3").glob("model*.safetensors"))
    killed_after(output, 3)
    run(file, overwrite=False)
    again = load_file(output / "adapter.safetensors")
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == 3
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert losses(output) == metrics


def losses(output):
    return [entry["loss"] for entry in RunDirectory.open(output).metrics() if "loss" in entry]


def test_the_run_is_the_same_whether_or_not_it_is_tried_before(own_file, run, monkeypatch):
    first = load_file(run(own_file("acme_scale")).output / "adapter.safetensors")
    for name in ("try_to_save", "read_back"):
        monkeypatch.setattr(f"sftplug.training.train.{name}", lambda *_: None)
    again = load_file(run(own_file("acme_scale")).output / "adapter.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_the_best_checkpoint_comes_back_at_the_end(own_file, run, tmp_path):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    file = own_file("acme_scale", train={**SAVES, **best, "eval_strategy": "steps", "eval_steps": 3})
    output = run(file, "data.eval_fraction=0.25").output
    saved, kept, last = (
        load_file(output / folder / "adapter.safetensors") for folder in (".", "checkpoint-3", "checkpoint-6")
    )
    assert all(torch.equal(saved[name], kept[name]) for name in saved)  # the loss falls, and the greatest was asked for
    assert any(not torch.equal(saved[name], last[name]) for name in saved)


def test_it_trains_on_weights_that_are_changed_once_they_are_loaded(own_file, run, command, tmp_path):
    (tmp_path / "twice.py").write_text(TWICE)
    file = own_file("acme_scale", plugins=["./own.py", "./twice.py"], quantization="twice")
    output = run(file).output
    loaded, _ = load_elsewhere(output, output, tmp_path)
    from ship.test_load import in_memory

    assert float((loaded - in_memory(output)).abs().max()) < 1e-5


def test_it_is_no_model_to_train_on_and_nothing_to_push(scale_run, command, recipe_file, tmp_path):
    said = str(command("check", recipe_file(model=str(scale_run), adapter="lora")).exception)
    assert f"model: {scale_run} is an adapter (acme_scale) of " in said
    assert f"sftplug merge {scale_run} --output {scale_run}-merged" in said
    error = command("push", scale_run, "me/model").exception
    assert "a base model in a folder" in str(error)
    said = str(command("train", scale_run.parent / "scale.yaml", "--output", scale_run).exception)
    assert "holds a finished run" in said
    assert f"To train on from it: `sftplug merge {scale_run}" in said
    shutil.copytree(scale_run, tmp_path / "alone", ignore=shutil.ignore_patterns("run.json"))
    said = str(command("check", recipe_file(model=str(tmp_path / "alone"), adapter="lora")).exception)
    assert "It is no type of PEFT: its own model card says how it is loaded." in said


# --- what is refused before the first step ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("forgetful", "loaded again by its own `load` it says something else: logits differ by"),
        ("misread", "loaded again by its own `loading_code`, as its model card says, it says something else"),
        ("failing", "loading_code() must return Python that runs: AttributeError"),
        ("whole", "'whole' has brought 28 parameters, such as model.layers.0.mlp.down_proj.scale"),
        ("hidden", "loaded again by transformers it says something else: logits differ by"),
    ],
)
def test_what_would_not_be_read_back_is_refused_before_it_is_trained(own_file, command, tmp_path, adapter, said):
    result = command("train", own_file(adapter))
    assert result.exit_code != 0
    assert said in str(result.exception)
    assert "Nothing has been trained." in str(result.exception)
    assert RunDirectory.open(tmp_path / "out").state().state == "failed"
    assert losses(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ("idle", "adapter 'idle' of plugin own (file) trains nothing"),
        (
            "secretive",
            "trains 20 parameters of the base itself, such as model.embed_tokens.weight, and says that it does",
        ),
        ("importing", "loading_code() must do without sftplug"),
    ],
)
def test_what_comes_to_nothing_is_said_by_check(own_file, command, adapter, said):
    result = command("check", own_file(adapter))
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_an_adapter_that_trains_nothing_is_refused_when_the_weights_are_there(own_file, command, tmp_path):
    file = own_file("idle_ones")
    assert command("check", file).exit_code == 0
    error = command("train", file).exception
    assert isinstance(error, ModelError)
    assert "trains nothing: no parameter of the model is left to be trained" in str(error)
    assert losses(tmp_path / "out") == []


def test_a_result_that_went_wrong_has_failed(own_file, command, monkeypatch, tmp_path):
    (tmp_path / "breaks.py").write_text(BREAKS)
    file = own_file("acme_scale", plugins=["./own.py", "./breaks.py"])
    monkeypatch.setenv("BREAK", "down_proj.shift")
    result = command("train", file)
    assert result.exit_code == 1
    assert "is not what was trained: loaded again by its own `load` it says something else" in str(result.exception)
    assert RunDirectory.open(tmp_path / "out").state().state == "failed"


# --- weights that are changed once they are loaded --------------------------------------------------------------------

TWICE = """
import sftplug

class Silent(sftplug.Quantization):
    \"\"\"Twice the weights, and nobody is told how.\"\"\"
    type: str = "silent"
    bits = 32
    def load_kwargs(self):
        return {"dtype": sftplug.require("torch", needed_by="twice").float32}
    def prepare_model(self, model):
        model.model.layers[0].mlp.up_proj.weight.data *= 2

class Twice(Silent):
    \"\"\"Twice the weights, and whoever reads the card is told how.\"\"\"
    type: str = "twice"
    def loading_code(self):
        return "model.model.layers[0].mlp.up_proj.weight.data *= 2"

@sftplug.hookimpl
def sftplug_quantizations():
    return [Silent, Twice]
"""


def test_a_card_that_loads_other_weights_is_told_of_by_check_and_by_itself(recipe_file, run, tmp_path):
    (tmp_path / "twice.py").write_text(TWICE)

    def told(quantization):
        file = recipe_file(plugins=["./twice.py"], adapter="lora", quantization=quantization)
        said = [text for text in notices(sftplug.load(file)) if "`loading_code`" in text]
        return said, (run(file).output / "README.md").read_text()

    (said,), card = told("silent")
    assert "'silent' of plugin twice (file) changes the model once it is loaded (`prepare_model`)" in said
    assert "**This code loads other weights than those that were trained on**: `silent` changes" in card
    said, card = told("twice")
    assert said == []
    assert "This code loads other weights" not in card
