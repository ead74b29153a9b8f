"""Callbacks, driven as a user drives them: from the command line, read back from the folder of the run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import rows, write_rows
from safetensors.torch import load_file
from typer.testing import CliRunner

from sftplug import PARTS, ROLE_CODES, ModelError, RecipeError, RunDirectory, TemplateError, TrainingError
from sftplug.cli import app
from sftplug.recipe import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
PROMPTS = ["Question 3: red or blue?", "Question 4: north or south?"]


@pytest.fixture
def train(recipe_file, tmp_path):
    """Return a function that trains a recipe with `sections` and returns its folder; `said` keeps what was printed."""

    def go(*overrides, output="out", **sections):
        arguments = ["train", str(recipe_file(**sections)), "--output", str(tmp_path / output), "--overwrite"]
        result = CliRunner().invoke(app, [*arguments, *overrides])
        if result.exception is not None:
            raise result.exception
        go.said = result.output
        return RunDirectory.open(tmp_path / output)

    go.file = recipe_file

    return go


@pytest.fixture
def tensorboard(tmp_path, monkeypatch):
    """Put a writer in place of tensorboardX, which is not needed to see what transformers' own tracker gives it."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tensorboardX.py").write_text(
        "class SummaryWriter:\n"
        "    written, folders = [], []\n"
        "    def __init__(self, log_dir=None): self.folders.append(log_dir)\n"
        "    def add_text(self, tag, text, step=None): self.written.append((tag, text, step))\n"
        "    def add_scalar(self, tag, value, step=None): self.written.append((tag, value, step))\n"
        "    def flush(self): pass\n"
        "    def close(self): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    import tensorboardX

    yield tensorboardX.SummaryWriter.written
    del sys.modules["tensorboardX"]


def measured(run, *names):
    return [[entry[name] for name in names] for entry in run.metrics() if names[0] in entry]


# --- samples ----------------------------------------------------------------------------------------------------------


def samples(**options):
    return {"callbacks": [{"type": "samples", "prompts": PROMPTS, "max_new_tokens": 4, **options}]}


@pytest.mark.parametrize(
    ("every", "steps"),
    [(None, [0, 6]), ("2 steps", [0, 2, 4, 6]), ("4 steps", [0, 4, 6]), ("epoch", [0, 3, 6])],
)
def test_samples_are_answered_when_they_are_due(train, tensorboard, every, steps):
    run = train("train.max_steps=6", "train.per_device_train_batch_size=8", "train.report_to=tensorboard",
                **samples(every=every))  # fmt: skip
    found = list(run.samples())
    assert [(entry["step"], entry["prompt"]) for entry in found] == [(step, text) for step in steps for text in PROMPTS]
    for step in steps[1:-1]:
        assert f"after {step} steps" in train.said
    texts = [(tag, text, step) for tag, text, step in tensorboard if "samples/" in tag]
    assert texts == [
        (f"train/samples/{PROMPTS.index(entry['prompt'])}", f"{entry['prompt']}\n\n{entry['answer']}", entry["step"])
        for entry in found
    ]


def test_a_folder_of_a_tracker_is_not_named_after_the_machine(train, tensorboard):
    from tensorboardX import SummaryWriter

    run = train("train.max_steps=1", "train.report_to=tensorboard")
    assert SummaryWriter.folders == [str(run.path / "tensorboard")]


def test_a_template_that_does_not_end_is_stopped_when_a_sample_sets_it_off(train, tmp_path, monkeypatch):
    from sftplug.data.render import budget

    monkeypatch.setattr(budget, "TURNS", 20_000)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    asks = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    bomb = "{% if messages[0].content == 'boom' %}" + loop + "{% endif %}"
    (tmp_path / "bomb.jinja").write_text(bomb + turns + asks)
    with pytest.raises(TemplateError, match=r"'of the tokenizer' is stopped: its loops and macros run more than"):
        train(chat_template={"file": "bomb.jinja"}, callbacks=[{"type": "samples", "prompts": ["boom"]}])


@pytest.mark.parametrize(("quantization", "adapter"), [("fp32", "full"), ("nf4", {"type": "lora", "dropout": 0.3})])
def test_samples_change_nothing_of_the_training(train, quantization, adapter):
    settings = {"quantization": quantization, "adapter": adapter}
    without = train("train.max_steps=6", **settings)
    alone = measured(without, "loss", "grad_norm")
    watched = train("train.max_steps=6", output="watched", **settings, **samples(every="1 steps"))
    assert len(list(watched.samples())) == 14
    assert len(alone) == 6
    assert measured(watched, "loss", "grad_norm") == alone


def test_each_module_trains_or_not_as_before_while_a_model_answers():
    from sftplug_callbacks.generate import undisturbed

    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2), torch.nn.Dropout())
    model.device = torch.device("cpu")
    model[2].eval()
    before = torch.get_rng_state()
    with undisturbed(model):
        assert not model[0].training
        torch.rand(3)
    assert [module.training for module in model] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every": "0 steps"}, "callbacks[0].every"),
        ({"every": "often"}, "callbacks[0].every"),
        ({"prompts": [*PROMPTS, PROMPTS[0]]}, "asks 'Question 3: red or blue?' more than once."),
    ],
)
def test_samples_that_cannot_be_are_refused(train, options, text):
    with pytest.raises(RecipeError) as error:
        train(**samples(**options))
    assert text in str(error.value)


# --- early stopping ---------------------------------------------------------------------------------------------------


@pytest.fixture
def held_out(tmp_path):
    """Return the override that evaluates on rows which answer otherwise: learning by heart makes them worse."""
    wrong = [{"messages": [row["messages"][0], {"role": "assistant", "content": "No."}]} for row in rows(4)]
    return f"data.eval={{path: {write_rows(tmp_path / 'eval.jsonl', wrong)}, format: messages}}"


def stopping(**options):
    return {"callbacks": [{"type": "early_stopping", **options}]}


STEPS = ["train.max_steps=40", "train.eval_strategy=steps", "train.eval_steps=2", "train.learning_rate=2e-2"]


def test_training_stops_early_and_the_best_checkpoint_is_the_result(train, held_out):
    run = train(held_out, *STEPS, **stopping(patience=2))
    evaluated = measured(run, "eval_loss", "step")
    best, step = min(evaluated)
    assert len(evaluated) >= 3
    assert [loss > best for loss, _ in evaluated[-2:]] == [True, True]  # two in a row, no more
    assert evaluated[-3] == [best, step]
    assert run.state().steps == evaluated[-1][1] == step + 4 < 40
    assert f"early stopping at step {step + 4}: no better eval_loss in 2 evaluations" in train.said
    assert f"the best is {best:.4f}, after {step} steps" in train.said
    result, kept = (load_file(run.path / folder / "model.safetensors") for folder in ("", f"checkpoint-{step}"))
    assert all(torch.equal(result[name], kept[name]) for name in kept)
    assert (run.path / f"checkpoint-{step + 4}").is_dir()


def test_the_last_weights_are_the_result_where_the_recipe_says_so(train, held_out):
    run = train(held_out, *STEPS, "train.save_strategy=steps", "train.save_steps=1",
                **stopping(patience=1, restore_best=False))  # fmt: skip
    last = run.state().steps
    assert last < 40
    result, kept = (load_file(run.path / folder / "model.safetensors") for folder in ("", f"checkpoint-{last}"))
    assert all(torch.equal(result[name], kept[name]) for name in kept)


def test_a_small_improvement_is_none(train, held_out):
    run = train(held_out, *STEPS, "train.learning_rate=1e-4", **stopping(patience=2, threshold=100.0))
    assert [step for _, step in measured(run, "eval_loss", "step")] == [2, 4, 6]


def test_a_run_that_goes_on_stops_where_it_would_have(train, held_out, recipe_file):
    """From the checkpoint before the last one, with its count; from the last one, without a further step."""
    import shutil

    steps = [*STEPS, "train.save_total_limit=9"]  # all checkpoints are there to resume from
    run = train(held_out, *steps, **stopping(patience=3))
    whole, last = measured(run, "eval_loss", "step"), run.state().steps
    for step in (last - 2, last):
        for folder in run.path.glob("checkpoint-*"):
            if int(folder.name.partition("-")[2]) > step:
                shutil.rmtree(folder)
        state = run.state()
        state.state = "running"  # as a kill leaves it
        run.write_state(state)
        file = recipe_file(**stopping(patience=3))
        result = CliRunner().invoke(app, ["train", str(file), "--output", str(run.path), held_out, *steps])
        assert result.exit_code == 0, result.exception
        assert f"resuming from step {step}" in result.output
        assert measured(run, "eval_loss", "step") == whole
        assert run.state().steps == last


@pytest.mark.parametrize(
    ("options", "overrides", "text"),
    [
        ({}, ["data.eval=[]"], "needs held-out rows to watch"),
        ({}, ["train.eval_strategy=no"], "`train.eval_strategy` is `no`"),
        ({}, ["train.save_strategy=steps"], "are saved by `train.save_strategy: steps` and evaluated by `epoch`."),
        ({}, ["train.save_strategy=no"], "are saved by `train.save_strategy: no` and evaluated by `epoch`."),
        ({}, [*STEPS, "train.save_steps=3"], "but `train.save_steps: 3` is not a multiple of 2, the steps between"),
        (
            {},
            ["train.metric_for_best_model=accuracy"],
            "means `train.metric_for_best_model: eval_loss`, and",
        ),
        ({}, ["train.load_best_model_at_end=false"], "means `train.load_best_model_at_end: true`, and the recipe says"),
        ({"metric": "loss/reasoning"}, [], "watches `loss/reasoning`, which no callback of the recipe measures."),
        ({"patience": 0}, [], "callbacks[0].patience"),
    ],
)
def test_early_stopping_says_what_it_needs(train, held_out, options, overrides, text):
    with pytest.raises(RecipeError) as error:
        train(held_out, *overrides, **stopping(**options))
    assert text in str(error.value)


OPINION = """
from typing import Literal
from sftplug import Callback, hookimpl
from transformers import TrainerCallback

class Opinion(Callback):
    type: Literal["opinion"] = "opinion"
    seed: int = 1

    def train_options(self, recipe):
        return {"seed": self.seed, "logging_steps": 2}

    def trainer_callback(self):
        return TrainerCallback()

@hookimpl
def sftplug_callbacks():
    return [Opinion]
"""


def test_two_callbacks_that_mean_two_values_of_one_trainer_option_are_refused(recipe_file, tmp_path):
    (tmp_path / "opinion.py").write_text(OPINION)

    def load(first, second, *overrides):
        callbacks = [{"type": "opinion", "seed": seed} for seed in (first, second)]
        return load_recipe(str(recipe_file(plugins="./opinion.py", callbacks=callbacks)), overrides)

    with pytest.raises(RecipeError) as error:
        load(1, 2)
    assert len(error.value.problems) == 1
    who = "callback 'opinion' of plugin opinion (file)"
    assert (
        f"callbacks[1] (recipe.yaml:34): {who} means `train.seed: 2`, and callbacks[0] ({who}) means 1. Leave out one "
        "of them, or say in the recipe what `train.seed` is."
    ) in re.sub(r"yaml:\d+", "yaml:34", str(error.value))
    load(2, 2)
    load(1, 2, "train.seed=3")


def test_a_metric_that_is_not_measured_is_refused_or_stops_the_run_and_says_what_is(train, held_out):
    with pytest.raises(ModelError, match=r"callbacks\[0\]: no evaluation measures `rouge`\. They measure loss"):
        train(held_out, *STEPS, **stopping(metric="rouge"))
    # Which parts there are, only the rows tell.
    absent = {"callbacks": [{"type": "early_stopping", "metric": "loss/tool_call"}, "loss_by"]}
    with pytest.raises(TrainingError, match=r"watches `eval_loss/tool_call`, which evaluations do not measure\."):
        train(held_out, *STEPS, **absent)


# --- loss by role, part and source ------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def two_sources(tmp_path):
    """Return overrides: chats with reasoning, calls of a tool, another template, and masks with weights."""
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
    thought, called = rows(6), rows(5, 1)
    for index, row in enumerate(thought):
        row["messages"][1] |= {"reasoning_content": f"Let me think of {index}.", "weight": 0.5 + index % 3}
    for row in called:
        row["messages"][1] = {"role": "assistant", "content": None, "tool_calls": [call]}
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    names = [write_rows(tmp_path / f"{name}.jsonl", made) for name, made in (("think", thought), ("call", called))]
    sources = ", ".join(f"{{path: {name}, format: messages}}" for name in names)
    return [
        f"data.train=[{sources}]",
        f"data.eval=[{sources}]",
        f"chat_template={{file: {tmp_path / 't.jinja'}}}",
        "masking=[{roles: [user, assistant]}, message_weights]",
        "data.max_length=160",
    ]


LOSS_BY = {"callbacks": [{"type": "loss_by", "shares": True}]}


def by_hand(prepared, file, overrides):
    """Return name -> (sum of w * nll, sum of w) over all rows in float64, each document alone; `` `` is all of them."""
    from sftplug.model.loading import load_model
    from sftplug.recipe import load_recipe

    model = load_model(load_recipe(str(file)).recipe).double()
    sums = {}
    for row in prepared(file, *overrides, "data.packing=none").train:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            nll = -model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        weights = row.get("weights") or [float(label >= 0) for label in row["labels"]]
        for code, weight, loss in zip(row["provenance"][1:], weights[1:], nll.tolist(), strict=True):
            source = ["think.jsonl", "call.jsonl"][code >> 6]
            for name in ("", source, ROLE_CODES[code >> 3 & 7], PARTS[code & 7]):
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + weight * loss, before[1] + weight)
    return {name: pair for name, pair in sums.items() if pair[1]}


def test_provenance_says_what_each_token_is_of(recipe_file, prepared, two_sources):
    from sftplug.model.loading import load_tokenizer
    from sftplug.recipe import load_recipe

    file = recipe_file(**LOSS_BY)
    tokenizer = load_tokenizer(load_recipe(str(file)).recipe)
    ready = prepared(file, *two_sources)
    texts = {}
    for row in (ready.train[0], ready.train[6]):
        codes, ids = np.array(row["provenance"]), np.array(row["input_ids"])
        for code in np.unique(codes).tolist():
            kind = (code >> 6, ROLE_CODES[code >> 3 & 7], PARTS[code & 7])
            texts[kind] = tokenizer.decode(ids[codes == code])
    assert "Let me think of 0." in texts[0, "assistant", "reasoning"]
    assert texts[0, "assistant", "content"] == "It is red."
    assert texts[0, "assistant", "end_of_turn"].strip() == "<|im_end|>"
    assert texts[0, "user", "content"].startswith("Question 0: ")
    assert '"sky"' in texts[1, "assistant", "tool_call"]
    assert (1, "assistant", "content") not in texts
    assert prepared(recipe_file(), *two_sources).train.column_names == ["input_ids", "labels", "weights"]


@pytest.mark.parametrize("packing", ["none", "rows", "flat"])
def test_each_part_is_what_it_is_by_hand_however_rows_are_batched(train, prepared, two_sources, monkeypatch, packing):
    file = train.file(**LOSS_BY)
    expected = by_hand(prepared, file, two_sources)
    assert {"", "think.jsonl", "call.jsonl", "user", "assistant", "content", "reasoning", "tool_call"} < {*expected}
    if packing == "flat":  # demands FlashAttention of a recipe; sdpa keeps the documents of one batch apart as well
        monkeypatch.setattr("sftplug.training.train.layout", lambda recipe: "flat")
    layout = [] if packing == "flat" else [f"data.packing={packing}"]
    count = len(prepared(file, *two_sources, *layout).train)
    for batch, accumulation in [(count, 1), (2, -(-count // 2))]:
        split = f"train.per_device_train_batch_size={batch}", f"train.gradient_accumulation_steps={accumulation}"
        once = ["train.max_steps=1", "train.learning_rate=0", f"train.per_device_eval_batch_size={batch}"]
        run = train(*two_sources, *layout, *split, *once, **LOSS_BY)
        logged = {name: value for entry in run.metrics() for name, value in entry.items()}
        whole, weight = expected[""]
        for prefix in ("", "eval_"):
            assert logged[f"{prefix}loss"] == pytest.approx(whole / weight, abs=1e-5)
            parts = {name for name in logged if name.startswith(f"{prefix}loss/")}
            assert parts == {f"{prefix}loss/{name}" for name in expected if name}
            for name, (loss, share) in expected.items():
                if name:
                    assert logged[f"{prefix}loss/{name}"] == pytest.approx(loss / share, abs=1e-5), name
                    assert logged[f"{prefix}share/{name}"] == pytest.approx(share / weight, abs=1e-6), name


def test_the_parts_add_up_to_the_logged_loss_and_change_nothing(train, two_sources, tensorboard):
    """Over several steps of several micro-batches, with dropout, on a 4-bit base; in training and in evaluation."""
    settings = {"quantization": "nf4", "adapter": {"type": "lora", "dropout": 0.2}}
    steps = ["train.max_steps=6", "train.logging_steps=3", "train.gradient_accumulation_steps=2",
             "train.per_device_train_batch_size=2", "train.eval_strategy=steps", "train.eval_steps=3"]  # fmt: skip
    alone = train(*two_sources, *steps, output="alone", **settings)
    losses = measured(alone, "loss", "grad_norm"), measured(alone, "eval_loss")
    run = train(*two_sources, *steps, "train.report_to=tensorboard", **settings, **LOSS_BY)
    assert (measured(run, "loss", "grad_norm"), measured(run, "eval_loss")) == losses
    logged = [entry for entry in run.metrics() if "loss" in entry or "eval_loss" in entry]
    assert len(logged) == 5  # the first step is logged too
    for entry in logged:
        prefix = "eval_" if "eval_loss" in entry else ""
        for names in (ROLE_CODES, PARTS, ("think.jsonl", "call.jsonl")):
            here = [name for name in names if f"{prefix}loss/{name}" in entry]
            assert len(here) >= 2
            total = sum(entry[f"{prefix}share/{name}"] * entry[f"{prefix}loss/{name}"] for name in here)
            assert total == pytest.approx(entry[f"{prefix}loss"], abs=1e-6)
            assert sum(entry[f"{prefix}share/{name}"] for name in here) == pytest.approx(1, abs=1e-6)
    first = next(entry for entry in logged if entry["step"] == 3 and "loss" in entry)
    assert f"step 3/6  loss of  user {first['loss/user']:.4f}  assistant {first['loss/assistant']:.4f}" in train.said
    assert "step 3/6  eval loss of  user " in train.said
    told = {(tag, step): value for tag, value, step in tensorboard}
    assert told["train/loss/reasoning", 3] == first["loss/reasoning"]
    assert told["eval/loss/call.jsonl", 6] == logged[-1]["eval_loss/call.jsonl"]


def test_a_plugin_splits_the_loss_by_whatever_it_likes_and_training_stops_by_that(train, two_sources):
    plugin = str(Path(__file__).parent / "thought.py")
    stop = {"type": "early_stopping", "metric": "loss/thought/think.jsonl", "patience": 1, "threshold": 100}
    run = train(*two_sources, *STEPS, plugins=[plugin], callbacks=["thought_by_source", "loss_by", stop])
    found = measured(run, "eval_loss/thought/think.jsonl", "eval_loss/reasoning", "step")
    assert [step for *_, step in found] == [2, 4]
    assert all(thought == pytest.approx(reasoning, abs=1e-12) for thought, reasoning, _ in found)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_fused_head_of_accelerators_gives_the_same_numbers(train, two_sources, weighted):
    """It runs on CPUs too, only slower: the losses are the same, and TRL's own metrics are logged beside them."""
    masking = [] if weighted else ["masking=assistant", "data.on_unread_column=report"]
    steps = [*two_sources, *masking, "train.max_steps=4", "train.gradient_accumulation_steps=2"]
    plain = train(*steps, output="plain", **LOSS_BY)
    head = "loss={type: cross_entropy, head: fused}"
    fused = train(*steps, head, output="fused", **LOSS_BY)
    trl = train(*steps, head, output="trl")
    names = [name for entry in plain.metrics() for name in entry if "loss" in name]
    assert len(names) > 20
    for name in dict.fromkeys(names):
        assert np.array(measured(fused, name)) == pytest.approx(np.array(measured(plain, name)), abs=1e-4), name
    noted = ("loss", "entropy", "mean_token_accuracy")
    assert np.array(measured(fused, *noted)) == pytest.approx(np.array(measured(trl, *noted)), abs=1e-6)


def test_rows_that_are_cut_over_devices_are_refused(train, prepared, two_sources, monkeypatch):
    from sftplug.model.loading import load_model
    from sftplug.recipe import load_recipe
    from sftplug.training.train import make_trainer

    file = train.file(**LOSS_BY)
    recipe = load_recipe(str(file), two_sources).recipe
    trainer = make_trainer(recipe, load_model(recipe), prepared(file, *two_sources))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    cut = SimpleNamespace(cp_enabled=True, sp_enabled=False, sp_backend=None)
    monkeypatch.setattr(type(trainer.accelerator), "parallelism_config", property(lambda self: cut))
    with pytest.raises(TrainingError, match="sequence parallelism cut rows into pieces, and loss weights"):
        trainer.compute_loss(trainer.model, batch)


@pytest.mark.slow
def test_two_processes_log_what_one_does(train, two_sources):
    """Sums are those over both; of 11 held-out rows in batches of 2 each, the one seen twice counts once."""
    script, file = Path(__file__).parent / "two_processes.py", train.file(**LOSS_BY)
    steps = ["train.max_steps=2", "train.save_strategy=no", "train.use_cpu=true", "train.eval_strategy=steps",
             "train.eval_steps=2", "train.train_sampling_strategy=sequential"]  # fmt: skip
    found = []
    for command, size in [([], 4), (["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"], 2)]:
        sizes = [f"train.per_device_{mode}_batch_size={size}" for mode in ("train", "eval")]
        arguments = [sys.executable, *command, script, file, *two_sources, *steps, *sizes]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ, **QUIET})
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout.strip().splitlines()[-1]))
    one, two = found
    assert [entry["step"] for entry in one] == [1, 2, 2]
    for alone, both in zip(one, two, strict=True):
        names = [name for name in alone if "loss" in name or "share/" in name]
        assert len(names) > 10
        assert [both[name] for name in names] == pytest.approx([alone[name] for name in names], abs=1e-5)


def test_rows_prepared_without_a_split_are_not_prepared_again_for_one(train, two_sources):
    train(*two_sources, "train.max_steps=1", output="without", **samples())
    assert "nothing was tokenized" not in train.said
    train(*two_sources, "train.max_steps=1", **LOSS_BY)
    assert "nothing was tokenized" in train.said


def test_names_of_sources_are_as_short_as_they_can_be():
    from sftplug.training.loss_sums import short_names

    assert short_names(["/x/a.jsonl", "/x/b.jsonl"]) == ["a.jsonl", "b.jsonl"]
    assert short_names(["/x/a.jsonl", "/y/a.jsonl", "org/a"]) == ["x/a.jsonl", "y/a.jsonl", "a"]
    assert short_names(["/x/a.jsonl", "b", "/x/a.jsonl"]) == ["a.jsonl#1", "b", "a.jsonl#2"]
    assert short_names(["a", "x/a"]) == ["a", "x/a"]


def test_a_source_with_the_name_of_a_part_is_told_apart_from_it():
    from sftplug import LossSums
    from sftplug_callbacks.loss_by import LossBy

    sums = LossSums(np.ones((2, 7, 6)) / 84, np.ones((2, 7, 6)) / 84, ("content", "chats"))
    assert {"loss/content", "loss/source/content", "loss/chats"} < {*LossBy().loss_metrics(sums)}


def test_rows_of_too_many_sources_are_refused(train, tmp_path, monkeypatch):
    from sftplug import DataError

    monkeypatch.setattr("sftplug.data.prepare.MOST_SOURCES", 1)
    source = f"{{path: {tmp_path / 'rows.jsonl'}, format: messages}}"
    with pytest.raises(DataError, match="the loss can be split by 1 sources, and the recipe names 2"):
        train(f"data.train=[{source}, {source}]", **LOSS_BY)


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_the_loss_of_held_out_rows_is_that_of_all_their_tokens(train, two_sources):
    """Whatever the batches; with the weights of the masks."""
    once = ["train.max_steps=1", "train.learning_rate=0", "train.eval_strategy=steps", "train.eval_steps=1"]
    found = [
        measured(train(*two_sources, *once, f"train.per_device_eval_batch_size={size}", *more), "eval_loss")[0][0]
        for size, more in [
            (1, ()),
            (4, ()),
            (11, ()),
            (4, ["data.packing=rows"]),
            (3, ()),
        ]
    ]
    assert found == pytest.approx([found[0]] * 5, abs=1e-6)
    unweighted = train(*two_sources, *once, "masking=assistant", "data.on_unread_column=report")
    assert abs(measured(unweighted, "eval_loss")[0][0] - found[0]) > 1e-3


@pytest.mark.parametrize(
    "option", ["prediction_loss_only=false", "include_for_metrics=[inputs]", "batch_eval_metrics=true"]
)
def test_options_that_would_gather_what_nobody_reads_are_refused(train, option):
    with pytest.raises(RecipeError, match=rf"train\.{option.partition('=')[0]}.*no logits of held-out rows are kept"):
        train(f"train.{option}")


# --- mixtures of experts ----------------------------------------------------------------------------------------------


@pytest.fixture
def experts(recipe_file, tmp_path):
    """Return a folder with a mixture of experts that has an auxiliary loss, with the tiny model's tokenizer."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM, set_seed

    from sftplug.model.loading import load_tokenizer
    from sftplug.recipe import load_recipe

    tokenizer = load_tokenizer(load_recipe(str(recipe_file())).recipe)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 4}
    config = Qwen3MoeConfig(**sizes, **heads, num_experts_per_tok=2, vocab_size=len(tokenizer),
                            router_aux_loss_coef=0.5, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    set_seed(0)
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "experts")
    tokenizer.save_pretrained(tmp_path / "experts")
    return tmp_path / "experts"


@pytest.mark.parametrize("weighted", [True, False])
def test_an_auxiliary_loss_is_added_to_what_is_trained_and_not_to_what_is_held_out(
    train, prepared, two_sources, experts, weighted
):
    """By hand: sum(w * nll) / sum(w) over the step, and the coefficient times the mean of the micro-batches' own."""
    from transformers import AutoModelForCausalLM

    from sftplug.training.collator import Collator

    masking = [] if weighted else ["masking=assistant", "data.on_unread_column=report"]
    settings = [*two_sources, f"model={experts}", "data.packing=none", *masking]
    rows_of = prepared(train.file(**LOSS_BY), *settings).train
    assert ("weights" in rows_of.column_names) == weighted
    model = AutoModelForCausalLM.from_pretrained(experts, output_router_logits=True, dtype=torch.float32)
    loss, weight, auxiliary = 0.0, 0.0, []
    for first in (0, 4, 8):
        batch = Collator(model.config.pad_token_id)(list(rows_of.select(range(first, min(first + 4, 11)))))
        with torch.no_grad():
            outputs = model(batch["input_ids"], attention_mask=batch["attention_mask"])
        nll = -outputs.logits.log_softmax(-1)[:, :-1].gather(2, batch["input_ids"][:, 1:, None])[..., 0]
        weights = batch.get("weights", (batch["labels"] >= 0).float())[:, 1:]
        loss, weight = loss + float((nll * weights).sum()), weight + float(weights.sum())
        auxiliary.append(float(outputs.aux_loss))
    once = ["train.max_steps=1", "train.learning_rate=0", "train.gradient_accumulation_steps=3"]
    sizes = ["train.per_device_train_batch_size=4", "train.per_device_eval_batch_size=4"]
    order = ["train.train_sampling_strategy=sequential"]
    run = train(*settings, *once, *sizes, *order, **LOSS_BY)
    logged = {name: value for entry in run.metrics() for name, value in entry.items()}
    for prefix, coefficient in (("", 0.5), ("eval_", 0.0)):
        assert logged[f"{prefix}aux_loss"] == pytest.approx(sum(auxiliary) / 3, abs=1e-5)
        assert logged[f"{prefix}loss"] == pytest.approx(loss / weight + coefficient * sum(auxiliary) / 3, abs=1e-5)
        parts = [name for name in PARTS if f"{prefix}loss/{name}" in logged]
        total = sum(logged[f"{prefix}share/{name}"] * logged[f"{prefix}loss/{name}"] for name in parts)
        assert total == pytest.approx(loss / weight, abs=1e-5)
