"""Weights that are trained in 16 bits lose small updates: told before, and counted afterwards."""

import pytest
import torch

from sftplug.model.loading import load_model
from sftplug.recipe import load_recipe
from sftplug.training.moved_weights import WeightSample
from sftplug.training.preflight.notices import STEP, notices

RATE = {"learning_rate": 1e-5}


def told(file, *overrides):
    said = notices(load_recipe(str(file), overrides))
    return [sentence for sentence in said if "small updates are lost" in sentence]


def test_whole_weights_in_bf16_are_told_with_what_helps(recipe_file):
    file = recipe_file(quantization="bf16", train=RATE)
    (said,) = told(file)
    assert said == (
        "quantization (recipe.yaml:13): 'full' trains weights in bfloat16 and keeps no copy of them in 32 bits, so "
        "small updates are lost. Adam moves a weight by about the learning rate in an update: at 1e-05, those beyond "
        "0.0051 are rounded back to what they were, norms among them. `quantization: fp32` keeps every update, for "
        "twice the memory; with `train.bf16: true` it still computes in bfloat16. At a higher rate more weights move. "
        "An adapter such as `lora` is trained in 32 bits."
    )
    # Each way out ends it.
    for way in (["quantization=fp32"], ["quantization=fp32", "train.bf16=true"], ["adapter=lora"]):
        assert told(file, *way) == []
    assert told(recipe_file(adapter={"freeze": {"train": ["*norm*"]}}, quantization="bf16", train=RATE))


def test_deepspeed_keeps_copies_and_where_bf16_is_slow_it_is_not_advised(recipe_file, slow_bfloat16):
    file = recipe_file(quantization="bf16", train=RATE)
    assert told(file, "launch={strategy: zero2, processes: 2}") == []
    assert told(file, "launch={strategy: fsdp2, processes: 2}")  # on a CPU nothing is upcast
    assert "train.bf16" not in told(file)[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_beyond_the_bound_stay_and_those_within_half_of_it_move(dtype):
    kind, rate = getattr(torch, dtype), 2.0**-7  # exact in both types
    weights = torch.linspace(0.1, 60, 5000).to(kind)
    moved = (weights - rate != weights) & (weights + rate != weights)
    assert not moved[weights > rate / STEP[dtype]].any()
    assert moved[weights < rate / STEP[dtype] / 2].all()
    assert not moved.all()
    assert moved.any()


def test_a_run_counts_the_weights_that_moved(recipe_file, run, tmp_path):
    file = recipe_file(quantization="bf16", train={**RATE, "max_steps": 3, "save_strategy": "no", "warmup_steps": 0})
    before = {name: weight.detach().clone() for name, weight in base(file).named_parameters()}
    moved = run(file).moved
    after = dict(base(file, f"model={tmp_path / 'out'}").named_parameters())
    differ = {name: int((after[name] != before[name]).sum()) for name in after}
    assert moved.share == pytest.approx(sum(differ.values()) / sum(w.numel() for w in after.values()), abs=0.03)
    assert set(moved.still) == {name for name, count in differ.items() if not count}
    assert all("norm" in name for name in moved.still)
    assert moved.tensors == len(after) > len(moved.still) > 0


def base(file, *overrides):
    return load_model(load_recipe(str(file), overrides).recipe)


def test_what_is_trained_in_32_bits_is_not_counted(recipe_file):
    assert WeightSample(base(recipe_file())).moved() is None


def test_the_terminal_says_how_many_moved(recipe_file, command):
    train = {**RATE, "max_steps": 2, "save_strategy": "no"}
    result = command("train", recipe_file(quantization="bf16", train=train))
    assert result.exit_code == 0, result.exception
    said = " ".join(result.output.split())
    assert "so small updates are lost" in said
    assert "of the trained 16-bit weights are other numbers than before; none at all in 5 of 20 tensors" in said


# --- in the run, after its first updates ------------------------------------------------------------------------------

FIRST = {**RATE, "max_steps": 6, "save_strategy": "no", "lr_scheduler_type": "constant", "warmup_steps": 0}


def seen(command, file):
    """Return what a run says of trained tensors after its first updates, and its exit code."""
    result = command("train", file)
    said = " ".join(f"{result.output} {result.exception or ''}".split())
    return "though they have gradients" in said, "the run learns nothing" in said, result.exit_code


def test_what_stays_after_the_first_updates_is_told_and_the_way_out_helps(recipe_file, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert seen(command, recipe_file(quantization="bf16", train=FIRST)) == (True, False, 0)  # the norms
    file = recipe_file(quantization="fp32", train=FIRST, output="other")
    assert seen(command, file) == (False, False, 0)


@pytest.mark.parametrize("quantization", ["bf16", "fp32"])
def test_a_run_in_which_nothing_moves_is_stopped(quantization, recipe_file, command):
    file = recipe_file(quantization=quantization, train={**FIRST, "learning_rate": 1e-12})
    told, stopped, code = seen(command, file)
    assert (told, stopped) == (False, True)
    assert code != 0


def test_rows_that_never_reach_a_tensor_are_told_of(recipe_file, run):
    """Of experts, one that no token was sent to; here, a layer whose share of the output is 0."""
    from transformers import TrainerCallback, TrainerControl, TrainerState

    from sftplug.training.movement import MovementCheck

    used, unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model = torch.nn.ModuleDict({"used": used, "unused": unused})
    said = []
    check = MovementCheck(said.append, 1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    arguments = type("Arguments", (), {"learning_rate": 1e-3, "deepspeed_plugin": None})
    state, control = TrainerState(), TrainerControl()
    for _ in range(6):
        value = torch.ones(1, 2)
        (used(value) + 0 * unused(value)).sum().backward()
        check.on_pre_optimizer_step(arguments, state, control, model=model, optimizer=optimizer)
        optimizer.step()
        optimizer.zero_grad()
        check.on_step_end(arguments, state, control, model=model)
    assert said == [
        "after the first 5 updates, 2 of 4 trained tensors have had no gradient but 0, such as unused.weight: no row "
        "so far has used them."
    ]
    assert isinstance(check, TrainerCallback)
