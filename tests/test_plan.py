"""What a plan says, against models that are really loaded and optimizers that really stepped."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY
from typer.testing import CliRunner

from sftplug import ModelError
from sftplug.cli import app
from sftplug.model.loading import load_model, new_ids
from sftplug.model.new_tokens import train_new_embeddings
from sftplug.planning.fit import _smaller
from sftplug.planning.optimizer import optimizer_bytes
from sftplug.planning.settings import settings_of
from sftplug.planning.weights import Trained, count_weights
from sftplug.planning.work import TrainingRows, work_of
from sftplug.recipe import load_recipe
from sftplug_tiny.builder import build_tokenizer

runner = CliRunner()


def held(model):
    """Return the bytes of everything that a model holds, shared memory once, the tables of quantization too."""
    found = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        state = getattr(tensor, "quant_state", None)
        nested = getattr(state, "state2", None)
        extra = [getattr(state, name, None) for name in ("absmax", "code", "offset")]
        extra += [getattr(nested, name, None) for name in ("absmax", "code")] + [getattr(tensor, "SCB", None)]
        for part in [tensor, *(part for part in extra if part is not None)]:
            found[part.data_ptr()] = part.numel() * part.element_size()
    return sum(found.values())


def planned(recipe):
    return count_weights(recipe, settings_of(recipe, on_cpu=True))[1]


def adapted(recipe):
    from peft import get_peft_model

    from sftplug.training.train import keep_adapter_in_fp32

    model, config = load_model(recipe), recipe.adapter.peft_config()
    if config is None:
        return model
    if recipe.model.add_tokens:
        train_new_embeddings(config, model, new_ids(recipe))
    model = get_peft_model(model, config)
    keep_adapter_in_fp32(model)
    return model


def check_exact(recipe):
    weights, model = planned(recipe), adapted(recipe)
    assert weights.base + weights.adapter == held(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert weights.trainable == sum(parameter.numel() for parameter in trained)
    assert weights.gradients == sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return weights


def stepped(model, name, folder):
    """Return the bytes of what an optimizer of transformers' trainer holds after its first update."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(str(folder), optim=name, use_cpu=True, report_to="none")
    optimizer = Trainer(model, arguments).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    state = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for values in optimizer.state.values()
        for tensor in values.values()
        if isinstance(tensor, torch.Tensor)
    }
    return sum(state.values())


FREEZE = {"type": "freeze", "train": ["*.q_proj.weight"]}
CASES = [
    *((quantization, adapter) for quantization in ("fp32", "bf16") for adapter in ("full", FREEZE, "lora")),
    *((quantization, "lora") for quantization in ("int8", "nf4", "fp4")),
    ({"type": "nf4", "double_quant": False}, "qlora"),
    ("bf16", "vera"),
]


@pytest.mark.parametrize(("quantization", "adapter"), CASES, ids=str)
def test_weights_are_exact_to_the_byte(recipe_file, quantization, adapter):
    check_exact(load_recipe(str(recipe_file(quantization=quantization, adapter=adapter))).recipe)


THIRD_PARTY = Path(__file__).parent / "third_party"
ROWWISE = """
from sftplug import Quantization, hookimpl, require

class Rowwise(Quantization):
    type: str = "rowwise"
    bits = 8
    keeps_inputs = True

    def load_kwargs(self):
        config = require("transformers", needed_by=self.type).BitsAndBytesConfig
        return {"quantization_config": config(load_in_8bit=True, llm_int8_skip_modules=[".*mlp", "lm_head"])}

    def weight_bytes(self, shape):
        return shape[0] * (shape[1] + 4)

@hookimpl
def sftplug_quantizations():
    return [Rowwise]
"""


def test_third_parties_are_exact_to_the_byte(recipe_file, tmp_path):
    shutil.copy(THIRD_PARTY / "acme_adapter.py", tmp_path)
    (tmp_path / "rowwise.py").write_text(ROWWISE)
    file = recipe_file(plugins=["./acme_adapter.py", "./rowwise.py"], quantization="rowwise", adapter="acme_ia3")
    recipe = load_recipe(str(file)).recipe
    weights = check_exact(recipe)
    assert weights.constants == 0
    size, known = optimizer_bytes("adamw_torch", weights.trained)
    assert known
    assert size.low == size.high == stepped(adapted(recipe), "adamw_torch", tmp_path)
    held_in_8_bits = {name for name, weight in adapted(recipe).named_parameters() if weight.dtype == torch.int8}
    assert {name.split(".")[-3] for name in held_in_8_bits if "base_layer" not in name} == {"self_attn"}


def test_a_backend_that_says_only_its_bits_gets_a_range_and_a_note(recipe_file, tmp_path):
    shutil.copy(THIRD_PARTY / "acme_quantization.py", tmp_path)
    file = recipe_file(plugins=["./acme_quantization.py"], quantization="int8_attention", adapter="lora")
    recipe = load_recipe(str(file)).recipe
    weights = planned(recipe)
    assert weights.base < held(adapted(recipe)) - weights.adapter <= weights.base + weights.constants
    answer = json.loads(runner.invoke(app, ["plan", str(file), "--device", "cpu", "--json"]).output)
    assert answer["memory"]["base"] == [weights.base, weights.base + weights.constants]
    assert "quantization int8_attention says 8 bits a weight and nothing of its scales" in answer["notes"][0]


def llama_folder(folder, tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tied,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_an_untied_head_counts_and_a_tied_one_does_not(recipe_file, tmp_path):
    sizes = {}
    for tied in (True, False):
        folder = llama_folder(tmp_path / f"model-{tied}", tied)
        recipe = load_recipe(str(recipe_file(model=folder, quantization="nf4", adapter="lora"))).recipe
        sizes[tied] = check_exact(recipe).base
    assert sizes[False] - sizes[True] == 500 * 64 * 2


def test_dora_with_a_head_that_is_trained_whole_is_exact_to_the_byte(recipe_file, tmp_path):
    dora = {"type": "lora", "dora": True, "modules_to_save": ["lm_head"]}
    file = recipe_file(model=llama_folder(tmp_path / "model", tied=False), quantization="nf4", adapter=dora)
    weights = check_exact(load_recipe(str(file)).recipe)
    assert any(tensor.shape == (500, 64) and tensor.bytes == 500 * 64 * 4 for tensor in weights.trained)


@pytest.mark.parametrize("adapter", ["full", "lora", "qlora"])
@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_new_tokens_are_exact_to_the_byte(recipe_file, tmp_path, adapter, tied):
    folder = llama_folder(tmp_path / "model", tied)
    tokens = ["<|one|>", "<|two|>", "<|three|>"]
    sections = {"quantization": None if adapter == "qlora" else "fp32", "adapter": adapter}
    build_tokenizer(500).save_pretrained(folder)
    plain, more = (
        check_exact(load_recipe(str(recipe_file(model={"name_or_path": folder, **added}, **sections))).recipe)
        for added in ({}, {"add_tokens": tokens})
    )
    trained = 3 * 64 * (1 if tied else 2)
    assert more.trainable - plain.trainable == trained


@pytest.mark.parametrize(
    "name",
    ["adamw_torch_fused", "adamw_torch", "sgd", "adagrad", "rmsprop", "adafactor", "adamw_8bit",
     "lion_8bit", "lion_32bit", "rmsprop_bnb_8bit", "ademamix", "ademamix_8bit"],
)  # fmt: skip
def test_optimizer_state_is_exact_to_the_byte(tmp_path, name):
    model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 80), torch.nn.Linear(80, 3)).bfloat16()
    held_by_it = stepped(model, name, tmp_path)
    trained = [Trained(tuple(p.shape), p.numel() * 2, p is model[0].weight) for p in model.parameters()]
    size, known = optimizer_bytes(name, trained)
    assert known
    assert size.low == size.high == held_by_it


def test_an_unknown_optimizer_gets_the_widest_range_and_a_note(recipe_file):
    result = runner.invoke(app, ["plan", str(recipe_file()), "train.optim=galore_adamw", "--device", "cpu", "--json"])
    answer = json.loads(result.output)
    assert answer["memory"]["optimizer"] == [0, 16 * answer["trainable"]]
    assert any("unknown optimizer state: `train.optim: galore_adamw`" in note for note in answer["notes"])


def test_operations_are_those_of_the_closed_form(recipe_file):
    from sftplug.planning import closed_form
    from sftplug.planning.fake_loss import FakeLoss
    from sftplug.planning.rehearse import FakeModel

    recipe = load_recipe(str(recipe_file())).recipe
    settings = settings_of(recipe, on_cpu=True)
    model, weights = count_weights(recipe, settings)
    rehearsed = FakeModel(model, settings, FakeLoss(recipe, on_cpu=True)).rehearse(2, 32, 31).flops
    assert 0.9 < rehearsed / closed_form.flops(weights, settings, 64) < 1.2


def test_updates_and_tokens_are_the_trainer_s(recipe_file, run):
    file = recipe_file(
        train={"num_train_epochs": 2, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 2}
    )
    answer = json.loads(runner.invoke(app, ["plan", str(file), "--device", "cpu", "--json"]).output)["work"]
    result = run(file)
    assert answer["updates"] == result.log[-1]["step"] == 6
    assert answer["rows"] == 24
    assert answer["tokens"] == [result.tokens, result.tokens]


def test_rows_that_are_not_here_are_not_read(recipe_file):
    hub = {"train": {"hub": "somebody/rows", "format": "messages"}, "max_length": 64}
    file = recipe_file()
    recipe = yaml.safe_load(file.read_text())
    recipe["data"], recipe["train"] = hub, {"num_train_epochs": 1, "per_device_train_batch_size": 4}
    file.write_text(json.dumps(recipe))
    answer = json.loads(runner.invoke(app, ["plan", str(file), "--device", "cpu", "--json"]).output)
    assert answer["work"]["updates"] is None
    assert answer["rows_unknown_because"].startswith("somebody/rows/train is not on this machine")
    counted = runner.invoke(app, ["plan", str(file), "--rows", "100", "--device", "cpu", "--json"])
    assert json.loads(counted.output)["work"]["updates"] == 25


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_password_of_an_address_is_shown(recipe_file, command, form):
    source = '{path: "https://reader:hunter2@example.invalid/x.jsonl", format: messages}'
    result = command("plan", recipe_file(), f"data.train=[{source}]", *form)
    assert result.exit_code == 0, result.exception
    assert "example.invalid" in result.output
    assert "hunter2" not in result.output + result.stderr


def test_errors_say_what_to_do(recipe_file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it asks again and again
    file = str(recipe_file())
    result = runner.invoke(app, ["plan", file, "--memory", "lots"])
    assert str(result.exception) == "--memory 'lots' is not an amount of memory. Write it as 24GB, 22.5GiB or 512MB."
    result = runner.invoke(app, ["plan", file, "--device", "RTX4091"])
    assert "no device 'RTX4091' is known. Did you mean 'RTX4090'? Known: cpu, A100-40GB" in str(result.exception)
    result = runner.invoke(app, ["plan", str(recipe_file(model="nobody/nothing")), "--device", "cpu"])
    assert isinstance(result.exception, ModelError)
    assert str(result.exception).startswith("the configuration of nobody/nothing cannot be loaded:")
    result = runner.invoke(app, ["plan", str(recipe_file(adapter={"type": "lora", "targets": ["nope"]}))])
    assert "target 'nope' matches no module" in str(result.exception)


def test_the_quickest_device_takes_the_least_time(recipe_file):
    from sftplug.planning import DEVICES

    settings = settings_of(load_recipe(str(recipe_file())).recipe, on_cpu=False)
    seconds = [work_of(settings, TrainingRows(8, 80), 10, 1e9, DEVICES[name]).seconds for name in ("H100", "L4")]
    assert seconds[0][0] < seconds[1][0]
    assert all(least < most for least, most in seconds)
    assert TINY["type"] == "tiny"


def test_shira_is_refused_because_it_draws_on_the_weights(recipe_file):
    result = runner.invoke(app, ["plan", str(recipe_file(adapter="shira")), "--device", "cpu", "--rows", "24"])
    assert isinstance(result.exception, ModelError)
    assert str(result.exception).startswith("adapter shira cannot be counted without the model's weights: ")


NOT_COUNTED = {"boft", "frod", "shira", "unilora"}
"""They compute with weights when they are made."""


@pytest.mark.parametrize("name", ["boft", "hra", "lokr", "miss", "randlora", "road"])
def test_adapters_that_are_read_from_a_library_are_exact_or_refused(recipe_file, name):
    recipe = load_recipe(str(recipe_file(adapter=name))).recipe
    if name in NOT_COUNTED:
        with pytest.raises(ModelError, match=f"adapter {name} cannot be counted without the model's weights: "):
            planned(recipe)
    else:
        check_exact(recipe)


@pytest.mark.parametrize(("batch", "smaller"), [(1, []), (6, [3, 1]), (7, [1]), (16, [8, 4, 2, 1])])
def test_smaller_batches_that_are_advised_hold_as_many_rows_to_an_update(batch, smaller):
    assert list(_smaller(batch)) == smaller
    assert all(batch % size == 0 for size in smaller)
