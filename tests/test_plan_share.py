"""What one of several processes is planned to hold, against a model that torch really cuts, and the formula of ZeRO."""

import json

import pytest
from typer.testing import CliRunner

from sftplug.cli import app
from sftplug.planning.result import Range
from sftplug.planning.settings import settings_of
from sftplug.planning.share import share_of
from sftplug.planning.weights import HeldParameter, ModelWeights, count_weights
from sftplug.recipe import load_recipe


def planned(file, *arguments):
    result = CliRunner().invoke(app, ["plan", str(file), "--device", "cpu", "--rows", "25", *arguments, "--json"])
    return json.loads(result.output)


@pytest.fixture
def four_processes():
    """This is the first of four processes; the others are not there, and nobody waits for them."""
    from torch.distributed import destroy_process_group, init_device_mesh, init_process_group
    from torch.testing._internal.distributed.fake_pg import FakeStore

    init_process_group(backend="fake", rank=0, world_size=4, store=FakeStore())
    yield init_device_mesh("cpu", (4,))
    destroy_process_group()


def test_fsdp2_is_exact_to_the_byte(recipe_file, tmp_path, four_processes):
    """Of 13 rows of a weight the first of four processes has four, and the last one: torch cuts whole rows."""
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=501, hidden_size=52, intermediate_size=90, num_hidden_layers=2, num_attention_heads=13,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model")
    for layer in [*model.model.layers, model]:
        fully_shard(layer, mesh=four_processes)
    here = [parameter.to_local() for parameter in model.parameters()]
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    recipe = load_recipe(str(recipe_file(model=str(tmp_path / "model"), adapter="full"))).recipe
    settings = settings_of(recipe, on_cpu=True)
    share = share_of(count_weights(recipe, settings)[1], settings, "fsdp2", 4)
    assert share.base - buffers == share.gradients == sum(tensor.nbytes for tensor in here)
    assert sum(tensor.nbytes for tensor in here) > sum(parameter.numel() for parameter in model.parameters())
    state = sum(2 * tensor.nbytes + 4 for tensor in here)  # AdamW: two moments, and the number of the step
    assert share.optimizer == Range(state, state)


def layer(index, size):
    return HeldParameter((size,), 2 * size, False, in_base=True, trained=True, layer=index)


@pytest.fixture
def on_gpu(recipe_file):
    """Settings of a run in bf16 on a GPU."""
    file = recipe_file(quantization="bf16", adapter="full")
    return settings_of(load_recipe(str(file)).recipe, on_cpu=False)


COUNT = 40 * 64_000
WEIGHTS = ModelWeights(tuple(layer(index, 64_000) for index in range(40)), buffers=0, constants=0, quantized=False)


@pytest.mark.parametrize(
    ("strategy", "base", "gradients", "states"),
    [("ddp", 2, 2, 2 * 2), ("zero2", 2, 2 / 64, 12 / 64), ("zero3", 2 / 64, 2 / 64, 12 / 64)],
)
def test_zero_is_that_of_the_paper(on_gpu, strategy, base, gradients, states):
    """Rajbhandari et al. 2020, figure 1: 2, 2 and K = 12 bytes a parameter; 64 processes share them.

    Without DeepSpeed there are no copies in 32 bits: states are then in the type of the weights.
    """
    share = share_of(WEIGHTS, on_gpu, strategy, 64)
    assert share.base == base * COUNT
    assert share.gradients == gradients * COUNT
    steps = 4 * 40 if strategy == "ddp" else 4
    assert share.optimizer == Range(round(states * COUNT) + steps, round(states * COUNT) + steps)


def test_fsdp2_trains_in_32_bits_where_there_is_autocast(on_gpu):
    share = share_of(WEIGHTS, on_gpu, "fsdp2", 64)
    assert share.base == share.gradients == 4 * COUNT / 64
    # One layer is gathered in bf16 at least; at most two are, and two wait to be sent.
    assert share.communication == Range(2 * 64_000, 4 * 2 * 64_000)


def test_zero3_gathers_a_layer_of_experts_that_is_larger_than_what_it_gathers_ahead(on_gpu):
    large = ModelWeights((layer(0, 2 * 10**9), layer(1, 8)), buffers=0, constants=0, quantized=False)
    communication = share_of(large, on_gpu, "zero3", 8).communication
    assert communication.high == communication.low > 2 * 2 * 10**9


def test_ddp_holds_everything_and_its_buckets(recipe_file):
    alone = planned(recipe_file())
    both = planned(recipe_file(), "launch.strategy=ddp", "launch.processes=2")
    held = ("base", "adapter", "gradients", "optimizer", "activations")
    assert [both["memory"][name] for name in held] == [alone["memory"][name] for name in held]
    assert alone["memory"]["communication"] == [0, 0]
    assert both["memory"]["communication"] == [both["memory"]["gradients"]] * 2
    assert "memory is that of the first of 2 processes, the work that of all" in both["notes"]


def test_several_processes_share_the_updates(recipe_file):
    file = recipe_file(train={"num_train_epochs": 2, "per_device_train_batch_size": 4})
    alone, both = planned(file), planned(file, "launch.strategy=ddp", "launch.processes=2")
    # 25 rows: 7 batches of one process, 4 of each of two.
    assert (alone["work"]["updates"], both["work"]["updates"]) == (14, 8)
    assert (alone["work"]["rows_per_update"], both["work"]["rows_per_update"]) == (4, 8)
    assert alone["work"]["tokens"] == both["work"]["tokens"]


def test_processes_that_cannot_be_counted_are_said(recipe_file, monkeypatch):
    monkeypatch.setattr("sftplug.launch.config.accelerators", lambda: 0)
    answer = planned(recipe_file(launch="fsdp2"))
    assert answer["memory"]["communication"] == [0, 0]
    text = "`launch.processes` is not set, and there are no accelerators here to count: one process is planned"
    assert text in answer["notes"]
