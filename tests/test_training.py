"""What a run leaves behind, and that its losses are the right ones."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import rows

from sftplug import ModelError, RunDirectory, TrainingError
from sftplug.recipe import load_recipe

pytestmark = pytest.mark.filterwarnings(
    # torch 2.13 warns that its own scheduler API moved; TRL and accelerate still use the old name.
    "ignore::DeprecationWarning",
)


def losses(result):
    return [entry["loss"] for entry in result.log if "loss" in entry]


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp4"])
def test_evaluation_between_steps_changes_no_later_loss(recipe_file, run, quantization):
    held_out = {"path": "rows.jsonl", "format": "messages"}
    data = {"train": held_out, "eval": held_out}
    file = recipe_file(adapter="lora", quantization=quantization, data=rows(), **{})
    recipe = yaml.safe_load(file.read_text())
    recipe["train"]["max_steps"] = 6
    file.write_text(yaml.safe_dump(recipe))
    without = losses(run(file))
    file.write_text(yaml.safe_dump({**recipe, "data": data}))
    result = run(file, "train.eval_strategy=steps", "train.eval_steps=2")
    assert len([entry for entry in result.log if "eval_loss" in entry]) == 3
    assert losses(result) == without
    assert without[-1] < without[0]


def test_the_run_folder_holds_what_inference_and_a_later_reader_need(recipe_file, run, prepared):
    file = recipe_file(adapter="lora")
    result = run(file)
    names = {path.name for path in result.output.iterdir()}
    assert {
        "adapter_model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "recipe.yaml",
        "plugins.json",
        "ledger.json",
        "metrics.jsonl",
    } <= names
    tokenizer = prepared(file).tokenizer
    ends = json.loads((result.output / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ends
    plugins = json.loads((result.output / "plugins.json").read_text())
    assert {plugin["name"] for plugin in plugins} >= {"adapters", "formats", "masking", "quantization", "templates"}
    assert json.loads((result.output / "ledger.json").read_text())["splits"]["train"][0]["kept"] == 24
    measured = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in measured] == losses(result)


def test_the_saved_recipe_prepares_the_same_labels(recipe_file, run, prepared, tmp_path):
    file = recipe_file()
    result = run(file)
    first, again = prepared(file).train, prepared(result.output / "recipe.yaml").train
    assert first[:] == again[:]


def test_the_saved_template_renders_a_prompt_that_is_a_prefix_of_what_was_trained(recipe_file, run, prepared):
    from transformers import AutoTokenizer

    data = [
        {"messages": [*first["messages"], *second["messages"]]}
        for first, second in zip(rows(6), rows(6, 1), strict=True)
    ]
    file = recipe_file(data=data)
    output = run(file).output
    trained = prepared(file).train
    tokenizer = AutoTokenizer.from_pretrained(output)
    for row, example in zip(data, trained, strict=True):
        for turn in (1, 3):
            prefix = row["messages"][:turn]
            prompt = tokenizer.apply_chat_template(prefix, add_generation_prompt=True)["input_ids"]
            assert example["input_ids"][: len(prompt)] == prompt
            assert example["labels"][len(prompt) - 1] == -100
            assert example["labels"][len(prompt)] != -100


def test_our_loss_on_a_cpu_is_trl_s(recipe_file, prepared):
    from trl import SFTTrainer

    from sftplug.model.loading import load_model
    from sftplug.recipe import load_recipe
    from sftplug.training.train import make_trainer
    from sftplug.training.trainer import SftplugTrainer

    file = recipe_file()
    loaded = load_recipe(str(file))
    trainer = make_trainer(loaded.recipe, load_model(loaded.recipe), prepared(file))
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        ours = trainer.compute_loss(trainer.model, dict(batch))
        theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    assert isinstance(trainer, SftplugTrainer)
    assert abs(float(ours) - float(theirs)) < 1e-6


@pytest.mark.parametrize("packing", ["none", "auto", "rows", "flat"])
def test_float_weights_give_the_weighted_mean_for_any_batch_split(recipe_file, run, prepared, monkeypatch, packing):
    """Loss and gradient of one step over all rows, against float64 by hand, each document alone."""
    from sftplug.model.loading import load_model

    data = rows(8)
    for index, row in enumerate(data):
        row["messages"][1]["weight"] = 0.3 * (index % 4 + 1)
    file = recipe_file(data=data, masking=["assistant", "message_weights"])
    model = load_model(load_recipe(str(file)).recipe).double()
    total, weight_sum = 0.0, 0.0
    for example in prepared(file).train:
        ids = torch.tensor([example["input_ids"]])
        nll = -model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        weights = torch.tensor(example["weights"], dtype=torch.float64)[1:]
        total, weight_sum = total + (nll * weights).sum(), weight_sum + float(weights.sum())
    mean = total / weight_sum
    mean.backward()
    norm = float(torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm())
    options = ["train.max_steps=1", "train.learning_rate=0", f"data.packing={packing}"]
    if packing == "rows":
        options.append("data.max_length=100")
    if packing == "flat":  # demands FlashAttention of a recipe; sdpa keeps the documents of one batch apart as well
        options.remove("data.packing=flat")
        monkeypatch.setattr("sftplug.training.train.layout", lambda recipe: "flat")
    count = len(prepared(file, *options).train)
    for batch, accumulation in [(count, 1), (1, count), (3, -(-count // 3))]:
        split = f"train.per_device_train_batch_size={batch}", f"train.gradient_accumulation_steps={accumulation}"
        result = run(file, *options, *split)
        assert abs(losses(result)[0] - mean.item()) < 1e-5
        assert result.log[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint_and_names_the_rows(recipe_file, run, tmp_path):
    with pytest.raises(TrainingError, match=r"the (loss of|gradient's norm at) step \d+ is (nan|inf)\.") as caught:
        run(recipe_file(), "train.learning_rate=1e30", "train.max_grad_norm=0", "train.max_steps=20")
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    assert len(re.findall(r"rows\.jsonl:\d+", str(caught.value))) == 4
    assert RunDirectory.open(tmp_path / "out").state().reason == f"TrainingError: {caught.value}"


def test_a_gradient_that_is_not_finite_stops_before_the_update_and_names_the_rows(recipe_file, prepared, tmp_path):
    trainer, _ = made(
        recipe_file(), prepared, "train.save_strategy=steps", "train.save_steps=1", "train.logging_steps=9"
    )
    weight = next(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match=r"the gradient's norm at step 1 is nan\. .*rows\.jsonl:\d+, "):
        trainer.train()
    assert torch.equal(weight, before)
    assert not list((tmp_path / "out").glob("checkpoint-*"))


@pytest.mark.parametrize("packing", ["none", "rows", "auto"])
def test_the_rows_of_a_step_are_those_that_the_trainer_gets(recipe_file, prepared, packing):
    from transformers import TrainerCallback

    trainer, ready = made(
        recipe_file(), prepared, f"data.packing={packing}", "data.max_length=96", "train.max_steps=-1",
        "train.num_train_epochs=2", "train.per_device_train_batch_size=3", "train.gradient_accumulation_steps=2",
        "train.save_strategy=no",
    )  # fmt: skip
    collate, got, named = trainer.data_collator, [], []
    trainer.data_collator = lambda rows: got.append([row["input_ids"] for row in rows]) or collate(rows)

    class Ask(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            named.append(ready.train[trainer.rows_of_step(0, 2)]["input_ids"])

    trainer.add_callback(Ask())
    trainer.train()
    assert len(named) >= 4
    assert [ids for step in named for ids in step] == [ids for batch in got for ids in batch]
    origins = ready.origins.of(range(len(ready.train)))
    assert sorted(int(origin.rpartition(":")[2]) for origin in origins) == list(range(1, 25))


def made(file, prepared, *overrides):
    from sftplug.model.loading import load_model
    from sftplug.training.train import make_trainer

    loaded = load_recipe(str(file), overrides)
    ready = prepared(file, *overrides)
    return make_trainer(loaded.recipe, load_model(loaded.recipe), ready), ready


def test_a_target_that_matches_nothing_names_the_nearest_before_weights_are_loaded(recipe_file, run):
    with pytest.raises(ModelError, match=r"target 'v_porj' matches no module of the model\. Did you mean 'v_proj'\?"):
        run(recipe_file(adapter={"type": "lora", "targets": ["q_proj", "v_porj"]}))
    with pytest.raises(ModelError, match=r"target 'lm_head' would be ignored by the fused loss"):
        run(recipe_file(adapter={"type": "lora", "targets": ["lm_head"]}))
    with pytest.raises(ModelError, match=r"`train: model\.layrs\.\*` matches no parameter\."):
        run(recipe_file(adapter={"type": "freeze", "train": ["model.layrs.*"]}))


def test_freeze_trains_what_matches_and_nothing_else(recipe_file, run):
    from safetensors.torch import load_file

    from sftplug.model.loading import base_model_path
    from sftplug.recipe import load_recipe

    file = recipe_file(adapter={"type": "freeze", "train": ["*.self_attn.q_proj.weight"]})
    result = run(file)
    base = load_file(base_model_path(load_recipe(str(file)).recipe) + "/model.safetensors")
    tuned = load_file(result.output / "model.safetensors")
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed == {name for name in base if name.endswith("self_attn.q_proj.weight")}
    assert result.size.modules == {"q_proj": 2}


@pytest.mark.parametrize("options", [{"dora": True}, {"rslora": True}, {"init": "olora"}, {"dropout": 0.1}])
def test_options_of_lora_train(recipe_file, run, options):
    result = run(recipe_file(adapter={"type": "lora", **options}))
    saved = json.loads((result.output / "adapter_config.json").read_text())
    assert saved["r"] == 16
    assert losses(result)[-1] < losses(result)[0]


def test_moments_of_a_run_are_told_and_a_failure_too(recipe_file, run, tmp_path):
    (tmp_path / "diary.py").write_text(
        "import sftplug\nseen = []\n"
        "@sftplug.hookimpl\ndef sftplug_trainer_created(trainer): seen.append('created')\n"
        "@sftplug.hookimpl\ndef sftplug_run_finished(result): seen.append(f'finished {result.tokens > 0}')\n"
        "@sftplug.hookimpl\ndef sftplug_run_failed(error): seen.append(f'failed {type(error).__name__}')\n"
    )
    from sftplug.recipe import load_recipe

    file = recipe_file(plugins=["./diary.py"])
    run(file)
    seen = sys.modules[next(name for name in reversed(sys.modules) if name.endswith("_diary"))].seen
    assert seen == ["created", "finished True"]
    with pytest.raises(ModelError):
        run(recipe_file(plugins=["./diary.py"], adapter={"type": "lora", "targets": ["nope"]}))
    seen = sys.modules[next(name for name in reversed(sys.modules) if name.endswith("_diary"))].seen
    assert seen == ["failed ModelError"]
    assert load_recipe(str(file)).active[0] == "adapters"


def test_a_missing_library_is_named_only_when_its_component_is_used(recipe_file):
    file = recipe_file(quantization="nf4", adapter="lora")
    code = (
        "import sys\nsys.modules['bitsandbytes'] = None\n"
        "from sftplug.recipe import load_recipe\n"
        f"recipe = load_recipe({str(file)!r}).recipe\n"
        "recipe.quantization.load_kwargs()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingLibraryError: quantization nf4 needs the library bitsandbytes, which" in result.stderr


def test_a_flat_batch_lays_rows_end_to_end_and_trains_no_first_token():
    from sftplug.training.collator import Collator

    rows = [
        {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "weights": [1.0, 0.5, 1.0]},
        {"input_ids": [4, 5], "labels": [-100, 5], "weights": [0.0, 2.0]},
    ]
    batch = Collator(0, flat=True)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 5]]
    assert batch["weights"].tolist() == [[0.0, 0.5, 1.0, 0.0, 2.0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert "attention_mask" not in batch


@pytest.mark.parametrize(
    ("packing", "attention", "expected"),
    [
        ("auto", None, "grouped"),
        ("auto", "sdpa", "grouped"),
        ("auto", "flash_attention_2", "flat"),
        ("none", "flash_attention_2", "none"),
        ("rows", "sdpa", "rows"),
    ],
)
def test_the_layout_suits_the_attention_unless_the_recipe_says_otherwise(recipe_file, packing, attention, expected):
    from sftplug.training.arguments import layout, training_arguments

    recipe = load_recipe(
        str(recipe_file()), [f"data.packing={packing}", f"model.attn_implementation={attention or 'null'}"]
    ).recipe
    assert layout(recipe) == expected
    grouped = training_arguments(recipe).train_sampling_strategy == "group_by_length"
    assert grouped == (expected == "grouped")
