"""What a plan says, against models that are really loaded and optimizers that really stepped."""

import dataclasses
import json

import pytest
import torch
from conftest import TINY
from typer.testing import CliRunner

from sftplug import ModelError
from sftplug.cli import app
from sftplug.models import load_model
from sftplug.plan.optimizer import optimizer_bytes
from sftplug.plan.settings import settings_of
from sftplug.plan.weights import Trained, count_weights
from sftplug.plan.work import Rows, work_of
from sftplug.recipe import load_recipe

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

    from sftplug.training import keep_adapter_in_fp32

    model, config = load_model(recipe), recipe.adapter.peft_config()
    if config is None:
        return model
    model = get_peft_model(model, config)
    keep_adapter_in_fp32(model)
    return model


def check(recipe):
    weights, model = planned(recipe), adapted(recipe)
    assert weights.base + weights.adapter == held(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert weights.trainable == sum(parameter.numel() for parameter in trained)
    assert weights.gradients == sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return weights


FREEZE = {"type": "freeze", "train": ["*.q_proj.weight"]}
CASES = [
    *((quantization, adapter) for quantization in ("fp32", "bf16") for adapter in ("full", FREEZE, "lora")),
    *((quantization, "lora") for quantization in ("int8", "nf4", "fp4")),
    ({"type": "nf4", "double_quant": False}, "qlora"),
]


@pytest.mark.parametrize(("quantization", "adapter"), CASES, ids=str)
def test_weights_are_exact_to_the_byte(recipe_file, quantization, adapter):
    check(load_recipe(str(recipe_file(quantization=quantization, adapter=adapter))).recipe)


def test_an_untied_head_counts_and_a_tied_one_does_not(recipe_file, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {}
    for tied in (True, False):
        folder = tmp_path / f"model-{tied}"
        config = LlamaConfig(
            vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
            tie_word_embeddings=tied,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        recipe = load_recipe(str(recipe_file(model=str(folder), quantization="nf4", adapter="lora"))).recipe
        sizes[tied] = check(recipe).base
    assert sizes[False] - sizes[True] == 500 * 64 * 2


@pytest.mark.parametrize(
    "name",
    ["adamw_torch_fused", "adamw_torch", "sgd", "adagrad", "rmsprop", "adafactor", "adamw_8bit",
     "lion_8bit", "lion_32bit", "rmsprop_bnb_8bit", "ademamix", "ademamix_8bit"],
)  # fmt: skip
def test_optimizer_state_is_exact_to_the_byte(tmp_path, name):
    from transformers import Trainer, TrainingArguments

    model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 80), torch.nn.Linear(80, 3)).bfloat16()
    arguments = TrainingArguments(str(tmp_path), optim=name, use_cpu=True, report_to="none")
    optimizer = Trainer(model, arguments).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for values in optimizer.state.values()
        for tensor in values.values()
        if isinstance(tensor, torch.Tensor)
    }
    trained = [Trained(tuple(p.shape), p.numel() * 2, p is model[0].weight) for p in model.parameters()]
    size, known = optimizer_bytes(name, trained)
    assert known
    assert size.low == size.high == sum(state.values())


def test_an_unknown_optimizer_gets_the_widest_range_and_a_note(recipe_file):
    result = runner.invoke(app, ["plan", str(recipe_file()), "train.optim=galore_adamw", "--device", "cpu", "--json"])
    answer = json.loads(result.output)
    assert answer["memory"]["optimizer"] == [0, 16 * answer["trainable"]]
    assert any("unknown optimizer state: `train.optim: galore_adamw`" in note for note in answer["notes"])


def test_a_rehearsal_counts_what_autograd_keeps_and_checkpointing_keeps_less(recipe_file):
    """A real forward pass, its saved tensors counted by torch's own hooks, against the rehearsed one."""
    from sftplug.plan.rehearse import Stage

    recipe = load_recipe(str(recipe_file(adapter="lora", quantization="bf16"))).recipe
    settings = settings_of(recipe, on_cpu=True)
    rehearsed = Stage(count_weights(recipe, settings)[0], settings).rehearse(4, 128, 1)
    model, saved = adapted(recipe).train(), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    ids = torch.zeros(4, 128, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    real = sum(storage.nbytes() for storage in saved.values())
    assert 0.93 < rehearsed.kept / real < 1.07
    less = dataclasses.replace(settings, checkpointing=True)
    again = Stage(count_weights(recipe, less)[0], less).rehearse(4, 128, 1)
    assert again.kept < 0.2 * rehearsed.kept
    assert again.peak < 0.8 * rehearsed.peak
    assert 1.1 < again.flops / rehearsed.flops < 1.6


def test_operations_are_those_of_the_closed_form(recipe_file):
    from sftplug.plan import closed_form
    from sftplug.plan.rehearse import Stage

    recipe = load_recipe(str(recipe_file())).recipe
    settings = settings_of(recipe, on_cpu=True)
    model, weights = count_weights(recipe, settings)
    rehearsed = Stage(model, settings).rehearse(2, 32, 31).flops
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


@pytest.fixture
def llama(tmp_path):
    """Return a function that writes the configuration of a Llama-3.1, and nothing else."""
    from transformers import LlamaConfig

    shapes = {
        "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
        "70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
    }

    def write(size):
        LlamaConfig(**shapes[size], num_key_value_heads=8, vocab_size=128256, dtype="bfloat16").save_pretrained(
            tmp_path / size
        )
        return f"model={{name_or_path: {tmp_path / size}}}"

    return write


def test_a_70b_model_in_nf4_weighs_what_is_known(llama):
    recipe = load_recipe("llama3.1/70b_qlora", [llama("70b").replace("model=", "model=")]).recipe
    weights = planned(recipe)
    assert weights.total - weights.trainable == 70_553_706_496
    assert 39e9 < weights.base < 42e9


def test_rows_that_are_not_here_are_not_read(recipe_file):
    hub = {"train": {"hub": "somebody/rows", "format": "messages"}, "max_length": 64}
    file = recipe_file()
    recipe = json.loads(json.dumps(__import__("yaml").safe_load(file.read_text())))
    recipe["data"], recipe["train"] = hub, {"num_train_epochs": 1, "per_device_train_batch_size": 4}
    file.write_text(json.dumps(recipe))
    answer = json.loads(runner.invoke(app, ["plan", str(file), "--device", "cpu", "--json"]).output)
    assert answer["work"]["updates"] is None
    assert answer["rows_unknown_because"].startswith("somebody/rows/train is not on this machine")
    counted = runner.invoke(app, ["plan", str(file), "--rows", "100", "--device", "cpu", "--json"])
    assert json.loads(counted.output)["work"]["updates"] == 25


def test_errors_say_what_to_do(recipe_file, tmp_path):
    file = str(recipe_file())
    result = runner.invoke(app, ["plan", file, "--memory", "lots"])
    assert str(result.exception) == "--memory 'lots' is no amount of memory. Write it as 24GB, 22.5GiB or 512MB."
    result = runner.invoke(app, ["plan", file, "--device", "RTX4091"])
    assert "no device 'RTX4091' is known. Did you mean 'RTX4090'? Known: cpu, A100-40GB" in str(result.exception)
    result = runner.invoke(app, ["plan", str(recipe_file(model="nobody/nothing")), "--device", "cpu"])
    assert isinstance(result.exception, ModelError)
    assert str(result.exception).startswith("the configuration of nobody/nothing cannot be loaded:")
    result = runner.invoke(app, ["plan", str(recipe_file(adapter={"type": "lora", "targets": ["nope"]}))])
    assert "target 'nope' matches no module" in str(result.exception)


def test_the_quickest_device_takes_the_least_time(recipe_file):
    from sftplug.plan import DEVICES

    settings = settings_of(load_recipe(str(recipe_file())).recipe, on_cpu=False)
    seconds = [work_of(settings, Rows(8, 80), 10, 1e9, DEVICES[name]).seconds for name in ("H100", "L4")]
    assert seconds[0][0] < seconds[1][0]
    assert all(least < most for least, most in seconds)
    assert TINY["type"] == "tiny"
