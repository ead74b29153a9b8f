"""What is saved is read back: refused before training where that cannot be, failed where it went wrong at the end."""

import hashlib
import json
from pathlib import Path

import pytest
from run.mixture import experts
from safetensors.torch import load_file, save_file

from sftplug import ModelError, RunDirectory
from sftplug.model.loading import load_model
from sftplug.model.weight_files import foresee_saving
from sftplug.recipe import load_recipe
from sftplug.training import probe, readback, rehearsal
from sftplug.training.model_state import TrainedState

TRAIN = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1}
SAVES = {**TRAIN, "save_strategy": "steps", "save_steps": 2}
BREAKS = """import os
from pathlib import Path

import sftplug


@sftplug.hookimpl
def sftplug_trainer_created(recipe, trainer):
    save = trainer.save_model

    def save_and_break(folder, **kwargs):
        save(folder, **kwargs)
        if "_internal_call" not in kwargs and os.environ.get("BREAK"):
            from safetensors.torch import load_file, save_file

            (file,) = Path(folder).glob("*.safetensors")
            tensors = load_file(file)
            broken = next(name for name in sorted(tensors) if os.environ["BREAK"] in name)
            tensors[broken] = tensors[broken] + 1
            save_file(tensors, file, metadata={"format": "pt"})

    trainer.save_model = save_and_break
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_adapter_that_plain_loading_does_not_give_back_is_refused_before_it_is_trained(
    recipe_file, command, tmp_path
):
    """PiSSA from a random decomposition begins, when it is loaded, from another one."""
    adapter = {"type": "peft_lora", "init_lora_weights": "pissa_niter_4", "target_modules": ["q_proj", "v_proj"]}
    result = command("train", recipe_file(adapter=adapter, train=SAVES))
    assert result.exit_code != 0
    said = str(result.exception)
    assert (
        "what this run would save could not be used: loaded again by PEFT it says something else: logits differ" in said
    )
    assert "Nothing has been trained. Choose another adapter than 'peft_lora'" in said
    run = RunDirectory.open(tmp_path / "out")
    assert run.state().state == "failed"
    assert list(run.metrics()) == []
    assert not [path for path in run.path.iterdir() if path.name.startswith((".trial", "checkpoint", "adapter"))]
    # The way out that it names: other options of it.
    assert command("train", recipe_file(adapter={**adapter, "init_lora_weights": "pissa"}, train=TRAIN)).exit_code == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        ("lora", "loaded again by PEFT it says something else: logits differ by"),
        ("full", "model.layers.0.self_attn.q_proj.weight was saved with other numbers"),
    ],
)
def test_a_result_that_went_wrong_has_failed_and_can_be_made_again(recipe_file, command, monkeypatch, adapter, why):
    file = recipe_file(plugins=["./breaks.py"], adapter=adapter, train=SAVES)
    (file.parent / "breaks.py").write_text(BREAKS)
    output = file.parent / "out"
    monkeypatch.setenv("BREAK", "q_proj.lora_B" if adapter == "lora" else "q_proj")
    result = command("train", file)
    assert result.exit_code == 1
    said = str(result.exception)
    assert f"the result in {output} is not what was trained: {why}" in said
    assert "Nothing up to step 4 is lost" in said
    state = RunDirectory.open(output).state()
    assert (state.state, state.steps) == ("failed", 4)
    monkeypatch.delenv("BREAK")
    result = command("train", file)
    assert result.exit_code == 0, result.output
    state = RunDirectory.open(output).state()
    assert (state.state, [attempt["from_step"] for attempt in state.attempts]) == ("finished", [0, 4])


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_run_is_the_same_whether_or_not_it_is_tried_before(recipe_file, run, monkeypatch, adapter):
    options = {"type": "lora", "dropout": 0.2} if adapter == "lora" else "full"
    file = recipe_file(adapter=options, train=TRAIN)

    def hashed():
        (weights,) = Path(run(file).output).glob("*.safetensors")
        return hashlib.sha256(weights.read_bytes()).hexdigest()

    tried = hashed()
    for name in ("try_to_save", "read_back"):
        monkeypatch.setattr(f"sftplug.training.train.{name}", lambda *_: None)
    assert hashed() == tried


@pytest.mark.parametrize("quantization", ["fp32", "bf16", "nf4", "int8"])
def test_no_second_base_is_loaded_to_compare_an_adapter(recipe_file, run, monkeypatch, quantization):
    compared = []
    logits = probe.logits_of
    monkeypatch.setattr(readback, "load_base", None)  # whoever loads it again, fails
    monkeypatch.setattr(probe, "logits_of", lambda *arguments: compared.append(logits(*arguments)) or compared[-1])
    run(recipe_file(adapter="lora", quantization=quantization, train=TRAIN))
    before, after = compared[:2], compared[2:]
    assert all((one == other).all() for one, other in (before, after))  # not a bit of difference
    assert (before[0] != after[0]).any()


def test_experts_are_compared_though_their_names_on_disk_are_others(recipe_file, run, monkeypatch, tmp_path):
    file = experts(recipe_file, tmp_path, save_strategy="no")
    output = run(file).output
    trained = load_file(output / "model.safetensors")
    name = next(name for name in trained if "experts.1.down_proj" in name)
    compare = readback._compare_weights
    seen = []

    def compare_broken(recipe, model, folder):
        compare(recipe, model, folder)
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, name: tensors[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(probe.DiffersError, match=r"experts\.down_proj was saved with other numbers"):
            compare(recipe, model, folder)
        seen.append(folder)

    monkeypatch.setattr(readback, "_compare_weights", compare_broken)
    run(file)
    assert len(seen) == 2


def test_a_large_model_is_not_written_before_it_is_trained(recipe_file, run, monkeypatch):
    monkeypatch.setattr(readback, "CHEAP", 1000)
    written = []
    compare = readback._compare_weights
    monkeypatch.setattr(readback, "_compare_weights", lambda *them: written.append(them[2].name) or compare(*them))
    run(recipe_file(adapter="full", train=TRAIN))
    assert written == ["out"]


def test_of_a_large_model_all_but_the_weights_is_written_and_read(recipe_file, run, monkeypatch):
    """Layout, tokenizer and generation configuration: what the files of weights would be called is tried on shapes."""
    monkeypatch.setattr(readback, "CHEAP", 1000)
    tried = []
    monkeypatch.setattr(readback, "_compare_tokenizer", lambda recipe, trainer, folder: tried.append(sorted_in(folder)))
    run(recipe_file(adapter="full", train=TRAIN))
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= set(tried[0])
    assert not [name for name in tried[0] if name.startswith("model-")]


def sorted_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_large_model_without_room_is_refused_and_finds_it_elsewhere(recipe_file, run, monkeypatch, tmp_path):
    monkeypatch.setattr(readback, "CHEAP", 1000)
    monkeypatch.setattr(rehearsal, "free_bytes", lambda path: 1000 if Path(path).name == "out" else 10**12)
    file = recipe_file(adapter="full", train=SAVES)
    with pytest.raises(
        ModelError, match=r"the weights of the result and a checkpoint take [\d,]+ bytes, and 1,000 are"
    ) as no:
        run(file)
    assert "Make room, or choose another --output." in str(no.value).replace("`output`", "--output")
    assert list(RunDirectory(tmp_path / "out").metrics()) == []
    run(file, f"output={tmp_path / 'other'}")


def test_weights_that_would_be_saved_under_other_names_are_foreseen(recipe_file):
    import torch

    model = load_model(load_recipe(str(recipe_file(adapter="full"))).recipe)
    foresee_saving(model)
    model.model.layers[0].beside = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"2 are of no use to this model \(model\.layers\.0\.beside"):
        foresee_saving(model)


def test_a_checkpoint_that_gives_back_nothing_is_found_out_before_the_first_step(
    recipe_file, run, monkeypatch, tmp_path
):
    monkeypatch.setattr(TrainedState, "read", lambda *them, **more: None)
    with pytest.raises(ModelError, match=r"a checkpoint does not give back \d+ trained tensors, such as "):
        run(recipe_file(adapter="lora", train=SAVES))
    assert list(RunDirectory(tmp_path / "out").metrics()) == []


@pytest.mark.parametrize(
    "adapter",
    [
        {"type": "p_tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 16},
        {"type": "prefix_tuning", "num_virtual_tokens": 4, "prefix_projection": True, "encoder_hidden_size": 16},
    ],
)
def test_the_best_checkpoint_of_a_prompt_is_given_back(adapter, recipe_file, run, tmp_path):
    """At a rate at which the first checkpoint is better than the last; PEFT keeps the prompt and not what makes it."""
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 5}
    file = recipe_file(
        adapter=adapter, train={**SAVES, **best, "metric_for_best_model": "loss", "greater_is_better": True}
    )
    run(file, "data.eval_fraction=0.25")
    state = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    kept = load_file(Path(state["best_model_checkpoint"]) / "adapter_model.safetensors")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert Path(state["best_model_checkpoint"]).name == "checkpoint-2"
    assert all((kept[name] == saved[name]).all() for name in kept)
