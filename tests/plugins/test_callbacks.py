"""Callbacks, driven as a user drives them: from the command line, read back from the folder of the run."""

import sys

import pytest
import torch
from conftest import rows, write_rows
from safetensors.torch import load_file
from typer.testing import CliRunner

from sftplug import RecipeError, RunDirectory, TrainingError
from sftplug.cli import app

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
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

    return go


@pytest.fixture
def tensorboard(tmp_path, monkeypatch):
    """Put a writer in place of tensorboardX, which is not needed to see what transformers' own tracker gives it."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tensorboardX.py").write_text(
        "class SummaryWriter:\n"
        "    written = []\n"
        "    def __init__(self, log_dir=None): pass\n"
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

    run = train(held_out, *STEPS, **stopping(patience=3))
    whole, last = measured(run, "eval_loss", "step"), run.state().steps
    for step in (last - 2, last):
        for folder in run.path.glob("checkpoint-*"):
            if int(folder.name.partition("-")[2]) > step:
                shutil.rmtree(folder)
        state = run.state()
        state.state = "running"  # as a kill leaves it
        run.write_state(state)
        file = recipe_file(**stopping(patience=3))
        result = CliRunner().invoke(app, ["train", str(file), "--output", str(run.path), held_out, *STEPS])
        assert result.exit_code == 0, result.exception
        assert f"resuming from step {step}" in result.output
        assert measured(run, "eval_loss", "step") == whole
        assert run.state().steps == last


@pytest.mark.parametrize(
    ("options", "overrides", "text"),
    [
        ({}, ["data.eval=[]"], "needs held-out rows to watch. Name some in `data.eval`, or set `data.eval_fraction`."),
        ({}, ["train.eval_strategy=no"], "needs evaluations, and `train.eval_strategy` is `no`."),
        ({}, ["train.save_strategy=steps"], "are saved by `train.save_strategy: steps` and evaluated by `epoch`."),
        ({}, ["train.save_strategy=no"], "are saved by `train.save_strategy: no` and evaluated by `epoch`."),
        ({}, [*STEPS, "train.save_steps=3"], "but `train.save_steps: 3` is no multiple of 2, the steps between"),
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


def test_a_metric_that_is_not_measured_stops_the_run_and_says_what_is(train, held_out):
    with pytest.raises(TrainingError, match=r"watches `eval_rouge`, which evaluations do not measure\. They do: loss"):
        train(held_out, *STEPS, **stopping(metric="rouge"))
