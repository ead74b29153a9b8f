"""A finished run whose recipe asks for more goes on from its end."""

import json

import pytest
from safetensors.torch import load_file
from torch import equal

from sftplug import RunDirectory, RunError
from sftplug.errors import PluginFault

ONE = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-3,
    "logging_steps": 1,
    "save_strategy": "epoch",
}
"""24 rows: three updates an epoch."""
EPOCHS = "train.num_train_epochs=2"


def losses(output):
    return [
        (line["step"], line["loss"], line["learning_rate"]) for line in RunDirectory(output).metrics() if "loss" in line
    ]


def weights(output):
    return load_file(next(output.glob("*model.safetensors")))


@pytest.mark.parametrize("adapter", [{"type": "lora", "dropout": 0.1}, "full"])
def test_at_a_constant_rate_it_is_the_run_that_was_longer_from_the_start(adapter, recipe_file, run, tmp_path):
    file = recipe_file(adapter=adapter, train={**ONE, "lr_scheduler_type": "constant", "warmup_steps": 0})
    run(file, EPOCHS, f"output={tmp_path / 'whole'}")
    run(file)
    run(file, EPOCHS, overwrite=False)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    one, other = weights(tmp_path / "out"), weights(tmp_path / "whole")
    assert all(equal(one[name], other[name]) for name in other)
    attempts = json.loads((tmp_path / "out" / "run.json").read_text())["attempts"]
    assert [(attempt["from_step"], attempt["state"]) for attempt in attempts] == [(0, "finished"), (3, "finished")]


def test_the_rate_is_that_of_the_longer_run_from_there_on(recipe_file, command, run, tmp_path):
    file = recipe_file(adapter="lora", train={**ONE, "lr_scheduler_type": "linear", "warmup_steps": 0})
    run(file, EPOCHS, f"output={tmp_path / 'whole'}")
    run(file)
    said = " ".join(command("train", file, EPOCHS).output.split())
    assert "the run had ended after 3 updates; train.num_train_epochs is 2 now and was 1" in said
    assert "goes on from update 3 of 6, where 3 were planned: learning rate 0.0025 from here on, and not 0" in said
    rates = [[rate for step, _, rate in losses(tmp_path / name) if step > 3] for name in ("out", "whole")]
    assert rates[0] == rates[1] == [pytest.approx(5e-3 * left / 6) for left in (3, 2, 1)]


BREAKS = """
import sftplug
from pathlib import Path

class Breaks(sftplug.Callback):
    \"\"\"Fail in the third update while there is a file `break` beside the run.\"\"\"

    type: str = "breaks"

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Break(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == 3 and (Path(args.output_dir).parent / "break").exists():
                    raise RuntimeError("broken on purpose")

        return Break()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Breaks]
"""


def test_steps_are_raised_too_and_what_broke_before_its_first_checkpoint_is_resumed(recipe_file, run, tmp_path):
    """Then the record says the longer run already, and the checkpoint is still that of the shorter one."""
    (tmp_path / "breaks.py").write_text(BREAKS)
    steps = {
        "max_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
    }
    train = {**{name: value for name, value in ONE.items() if name != "num_train_epochs"}, **steps}
    file = recipe_file(adapter="lora", plugins=["./breaks.py"], callbacks="breaks", train=train)
    run(file)
    run(file, "train.max_steps=4", overwrite=False)
    at_once = losses(tmp_path / "out")
    run(file)
    (tmp_path / "break").touch()
    with pytest.raises(PluginFault, match="on purpose"):
        run(file, "train.max_steps=4", overwrite=False)
    (tmp_path / "break").unlink()
    run(file, "train.max_steps=4", overwrite=False)
    assert losses(tmp_path / "out") == at_once
    assert [step for step, *_ in at_once] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=1e-4", "holds a finished run of another recipe:\n  train.learning_rate"),
        ("adapter.r=4", "adapter.r: 16 -> 4"),
    ],
)
def test_nothing_else_may_differ(override, said, recipe_file, run):
    file = recipe_file(adapter="lora", train=ONE)
    run(file)
    with pytest.raises(RunError, match=said):
        run(file, EPOCHS, override, overwrite=False)


def test_without_a_checkpoint_it_is_refused_and_stays_finished(recipe_file, run, tmp_path):
    file = recipe_file(adapter="full", train={**ONE, "save_strategy": "no"})
    run(file)
    with pytest.raises(RunError, match=r"its optimizer was not saved.*`model: .*out`, and another `output`"):
        run(file, EPOCHS, overwrite=False)
    assert RunDirectory(tmp_path / "out").state().state == "finished"


def test_what_a_callback_has_ended_is_not_made_longer(recipe_file, run):
    stop = {"type": "early_stopping", "patience": 1, "threshold": 1}
    file = recipe_file(adapter="lora", callbacks=[stop], train={**ONE, "num_train_epochs": 4})
    held_out = "data.eval_fraction=0.25"
    run(file, held_out)
    with pytest.raises(RunError, match=r"a callback ended after .* a longer one would end there too"):
        run(file, held_out, "train.num_train_epochs=8", overwrite=False)
