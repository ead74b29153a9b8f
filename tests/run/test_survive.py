"""Runs that are killed, interrupted or full go on as if nothing had happened."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import TINY, rows, write_rows
from run.children import call

from sftplug import RunDirectory, RunError

KILLER = Path(__file__).parent / "killer.py"
UNTIMED = ("seconds", "peak_bytes", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Return a folder with a recipe, and a function that trains it in a process of its own."""
    folder = tmp_path_factory.mktemp("job")
    write_rows(folder / "rows.jsonl", rows(24))
    shutil.copy(KILLER, folder / "killer.py")
    recipe = {
        "plugins": ["./killer.py"],
        "model": {"build": TINY},
        "data": {
            "train": {"path": "rows.jsonl", "format": "messages"},
            "eval": {"path": "rows.jsonl", "format": "messages", "first": 2},
            "max_length": 128,
        },
        "chat_template": "chatml",
        "adapter": {"type": "lora", "dropout": 0.1},
        "quantization": "nf4",
        "callbacks": [
            {"type": "killer", "folder": str(folder)},
            {"type": "samples", "prompts": ["Question 3: red or blue?"], "every": "3 steps", "max_new_tokens": 3},
            {"type": "loss_by", "shares": True},
        ],
        "train": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 2,
            "learning_rate": 5e-3,
            "logging_steps": 3,
            "save_strategy": "steps",
            "save_steps": 2,
            "eval_strategy": "epoch",
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    environment = {"SFTPLUG_CACHE": os.environ["SFTPLUG_CACHE"], "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}

    def train(output, *more):
        code = call(["train", folder / "recipe.yaml", "--output", output, *more], folder / "log", environment)
        return code, (folder / "log").read_text()

    assert train(folder / "undisturbed")[0] == 0
    metrics, samples, *_ = outcome(folder / "undisturbed")
    assert [entry["step"] for entry in metrics] == [1, 3, 4, 6, 8, 8]  # the first and the last step too
    assert [path.name for path in (folder / "undisturbed").glob("checkpoint-*")] == ["checkpoint-8"]
    assert [sample["step"] for sample in samples] == [0, 3, 6, 8]
    return folder, train


def outcome(output):
    run = RunDirectory.open(output)
    metrics = [{key: value for key, value in entry.items() if key not in UNTIMED} for entry in run.metrics()]
    weights = hashlib.sha256((Path(output) / "adapter_model.safetensors").read_bytes()).hexdigest()
    state = run.state()
    return metrics, list(run.samples()), weights, state.tokens, state.loss, state.steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "resumes_from"),
    [
        ("step 1 SIGKILL", 0),
        ("checkpoint 4 SIGKILL", 2),
        ("step 5 SIGKILL", 4),
        ("step 3 SIGQUIT", 2),
        ("eval 4 SIGKILL", 2),
        ("save 0 SIGKILL", 8),
    ],
)
def test_a_killed_run_ends_as_if_nobody_had_disturbed_it(job, plan, resumes_from):
    folder, train = job
    output = folder / plan.replace(" ", "-")
    (folder / "plan").write_text(plan)
    assert train(output)[0] == -signal.Signals[plan.split()[2]]
    assert not (folder / "plan").exists()
    assert RunDirectory.open(output).state().state == "running"
    code, said = train(output)
    assert code == 0, said
    assert ("resuming from step" in said) == (resumes_from > 0)
    assert outcome(output) == outcome(folder / "undisturbed")
    state = RunDirectory.open(output).state()
    assert state.state == "finished"
    assert [attempt["from_step"] for attempt in state.attempts] == [0, resumes_from]


@pytest.mark.slow
def test_a_killed_run_of_an_adapter_that_peft_saves_in_part_ends_as_if_nobody_had_disturbed_it(job):
    """Of `p_tuning` a checkpoint of PEFT holds the prompt, and nothing of the network that makes it."""
    folder, train = job
    options = ("adapter={type: p_tuning, num_virtual_tokens: 4, encoder_hidden_size: 16}", "train.logging_steps=0.25")
    assert train(folder / "prompt", *options)[0] == 0
    (folder / "plan").write_text("step 5 SIGKILL")
    assert train(folder / "killed-prompt", *options)[0] == -signal.SIGKILL
    code, said = train(folder / "killed-prompt", *options)
    assert code == 0, said
    assert "resuming from step 4" in said
    assert "do not match" not in said  # a share of the run is a number of steps in the checkpoint
    assert outcome(folder / "killed-prompt") == outcome(folder / "prompt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "code", "step"), [("step 3 SIGTERM", 143, 3), ("eval 4 SIGINT", 130, 4), ("step 5 SIGHUP", 129, 5)]
)
def test_a_signal_ends_a_run_after_a_checkpoint_and_says_how_to_go_on(job, plan, code, step):
    folder, train = job
    output = folder / plan.replace(" ", "-")
    (folder / "plan").write_text(plan)
    found, said = train(output)
    assert found == code, said
    name = plan.split()[2]
    ends = "the step ends, then a checkpoint is saved"
    how = f"the terminal is closed: {ends}" if name == "SIGHUP" else f"{ends}; a second signal ends the run at once"
    assert f"{name}: {how}." in said
    assert f"interrupted by {name}: checkpoint-{step} is saved in {output}. Run the same command again" in said
    assert RunDirectory.open(output).state().state == "interrupted"
    found, said = train(output, "--resume")
    assert found == 0, said
    assert f"resuming from step {step}" in said
    assert outcome(output) == outcome(folder / "undisturbed")


@pytest.mark.slow
def test_a_second_signal_while_the_checkpoint_of_the_first_is_written_does_not_lose_it(job):
    folder, train = job
    output = folder / "impatient"
    (folder / "plan").write_text("step 3 SIGTERM\ncheckpoint 3 SIGTERM")
    code, said = train(output)
    assert code == 143, said
    assert (
        "SIGTERM: the checkpoint that is being written is finished, then the run ends; one more ends it at once, "
        "without that checkpoint." in said
    )
    assert f"interrupted by SIGTERM: checkpoint-3 is saved in {output}." in said
    state = RunDirectory.open(output).state()
    assert (state.state, state.steps, state.max_steps, state.tokens > 0) == ("interrupted", 3, 8, True)
    # A first signal that comes while a checkpoint is written ends the run with that one; the third does not wait.
    (folder / "plan").write_text("checkpoint 4 SIGINT\ncheckpoint 4 SIGINT\ncheckpoint 4 SIGINT")
    code, said = train(output)
    assert code == -signal.SIGINT, said
    assert "SIGINT: the checkpoint that is being written is finished, then the run ends.\n" in said
    assert [path.parent.name for path in output.glob("checkpoint-*/sealed.json")] == ["checkpoint-3"], said
    (folder / "plan").write_text("checkpoint 6 SIGINT")
    code, said = train(output)
    assert code == 130, said
    assert "checkpoint-4 was not finished; it is not used" in said
    assert f"interrupted by SIGINT: checkpoint-6 is saved in {output}." in said
    code, said = train(output)
    assert code == 0, said
    assert "resuming from step 6" in said
    assert outcome(output) == outcome(folder / "undisturbed")


def test_a_damaged_checkpoint_is_not_used_and_a_finished_run_is_not_touched(job):
    folder, train = job
    code, said = train(folder / "undisturbed")
    assert code == 2
    assert f"{folder / 'undisturbed'} holds a finished run" in said
    output = folder / "damaged"
    assert train(output, "train.save_total_limit=3")[0] == 0
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6", "checkpoint-8"]
    state = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**state, "state": "running"}))
    (output / "checkpoint-8" / "optimizer.pt").unlink()
    (output / "checkpoint-6" / "rng_state.pth").write_bytes(
        b"x" * (output / "checkpoint-6/rng_state.pth").stat().st_size
    )
    code, said = train(output, "train.save_total_limit=3")
    assert code == 0, said
    assert "checkpoint-8 has lost optimizer.pt; it is not used" in said
    assert "checkpoint-6 has a rng_state.pth that is not what was written; it is not used" in said
    assert "resuming from step 4" in said
    assert outcome(output) == outcome(folder / "undisturbed")


TIRED = '''
from typing import Literal
import sftplug

class Tired(sftplug.Callback):
    """End the training after so many logs."""
    type: Literal["tired"] = "tired"
    after: int

    def trainer_callback(self):
        from transformers import TrainerCallback
        from transformers.trainer_callback import ExportableState

        class Count(TrainerCallback, ExportableState):
            def __init__(self, after):
                self.after, self.seen = after, 0

            def state(self):
                return {"args": {"after": self.after}, "attributes": {"seen": self.seen}}

            def on_log(self, args, state, control, logs, **kwargs):
                self.seen += "loss" in logs
                control.should_training_stop |= self.seen >= self.after

        return Count(self.after)

@sftplug.hookimpl
def sftplug_callbacks():
    return [Tired]
'''


def test_callbacks_of_a_plugin_go_on_counting(recipe_file, run, tmp_path):
    """Two of one kind, each with its own count: else the run would resume to another step than it would have."""
    (tmp_path / "tired.py").write_text(TIRED)
    tired = [{"type": "tired", "after": after} for after in (9, 5)]
    saving = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 0, "per_device_train_batch_size": 4}
    train = {"max_steps": 12, "logging_steps": 1, "learning_rate": 5e-3, **saving}
    file = recipe_file(plugins=["./tired.py"], adapter="lora", callbacks=tired, train=train)
    output = run(file).output
    whole = outcome(output)
    assert whole[-1] == 5
    shutil.rmtree(output / "checkpoint-4")
    shutil.rmtree(output / "checkpoint-5", ignore_errors=True)
    state = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**state, "state": "running"}))  # as a kill leaves it
    run(file, overwrite=False)
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == 2
    assert outcome(output) == whole


def test_states_of_other_callbacks_are_refused():
    from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
    from transformers.trainer_callback import ExportableState

    from sftplug.training.callback_state import states_of, with_states

    stop = EarlyStoppingCallback(3)
    stop.early_stopping_patience_counter = 2
    states = states_of([PrinterCallback(), stop])
    fresh = [EarlyStoppingCallback(3), PrinterCallback()]
    first, second = with_states(fresh, states)
    assert (first.early_stopping_patience_counter, second) == (2, fresh[1])
    with pytest.raises(RunError, match=r"states of other callbacks: EarlyStoppingCallback then, none now\. Begin a"):
        with_states([PrinterCallback()], states)

    class Needs(TrainerCallback, ExportableState):
        def __init__(self, what):
            self.what = what

        def state(self):
            return {"args": {}, "attributes": {}}

    with pytest.raises(RunError, match=r"Needs cannot be given back its state: TypeError: .*'what'\. Its `state\(\)`"):
        with_states([Needs(1)], states_of([Needs(2)]))


@pytest.mark.slow
def test_a_file_that_may_not_grow_loses_nothing_and_the_run_goes_on_when_it_may(job):
    folder, train = job
    output = folder / "full"
    (folder / "plan").write_text("step 3 FULL")
    code, said = train(output)
    assert code == 1
    limit = "no file may be larger than 20,000 bytes here (`ulimit -f`)"
    assert f"checkpoint-4 cannot be written: {limit}. Nothing up to step 2 is lost" in said
    assert "once that is fixed, the same command resumes from there." in said
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-2"]
    assert RunDirectory.open(output).state().state == "failed"
    code, said = train(output)
    assert code == 0, said
    assert outcome(output) == outcome(folder / "undisturbed")
