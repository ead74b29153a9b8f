"""A project that is moved or copied as a whole, its run with it, goes on as if it had stayed where it was."""

import json
import shutil

import pytest
import yaml
from conftest import TINY, rows, train_file, write_rows
from run.test_held import killed_after
from run.test_survive import outcome

from sftplug import RunDirectory, RunError

TRAIN = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 0,
    "load_best_model_at_end": True,
    "eval_strategy": "steps",
    "eval_steps": 3,
}
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
PLUGIN = """import sftplug

class Mine(sftplug.Masking):
    \"\"\"All that is trainable.\"\"\"
    type: str = "mine"
    def weights(self, tokens):
        return tokens.trainable

@sftplug.hookimpl
def sftplug_maskings():
    return [Mine]
"""


def project(folder, **sections):
    """Write a project: recipe, rows, a template and a plugin file."""
    (folder / "data").mkdir(parents=True)
    write_rows(folder / "data" / "rows.jsonl", rows())
    write_rows(folder / "data" / "held.jsonl", rows(6, seed=1))
    (folder / "own.jinja").write_text(TEMPLATE + "{% if add_generation_prompt %}assistant: {% endif %}")
    (folder / "mine.py").write_text(PLUGIN)
    recipe = {
        "plugins": ["./mine.py"],
        "model": {"build": TINY},
        "data": {"train": {"path": "data/rows.jsonl"}, "eval": {"path": "data/held.jsonl"}, "max_length": 256},
        "chat_template": {"type": "file", "path": "own.jinja"},
        "masking": "mine",
        "quantization": "fp32",
        "adapter": "lora",
        "train": TRAIN,
        "output": str(folder / "run"),
        **sections,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder / "recipe.yaml"


def as_0_1_0(run, folder):
    """Write the record as 0.1.0 had it: every path absolute."""
    known = yaml.safe_load((run / "recipe.yaml").read_text())
    known["data"]["train"][0]["source"]["path"] = str(folder / "data" / "rows.jsonl")
    known["data"]["eval"][0]["source"]["path"] = str(folder / "data" / "held.jsonl")
    known["chat_template"]["path"] = str(folder / "own.jinja")
    (run / "recipe.yaml").write_text(yaml.safe_dump(known, sort_keys=False))
    (run / "places.json").unlink()


@pytest.mark.parametrize("record", ["now", "0.1.0"])
def test_a_moved_project_resumes_to_the_same_bits(tmp_path, command, record):
    file = project(tmp_path / "old")
    output = train_file(file).output
    whole = outcome(output)
    recorded = RunDirectory.open(output).recipe()
    assert recorded["data"]["train"][0]["source"]["path"] == "../data/rows.jsonl"
    assert recorded["chat_template"]["path"] == "../own.jinja"
    assert str(tmp_path) not in (output / "recipe.yaml").read_text().replace(str(output), "")
    killed_after(output, 3)
    if record == "0.1.0":
        as_0_1_0(output, tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    again = train_file(tmp_path / "new" / "recipe.yaml", f"output={tmp_path / 'new' / 'run'}", overwrite=False)
    assert RunDirectory.open(again.output).state().attempts[-1]["from_step"] == 3
    assert outcome(again.output) == whole
    best = json.loads((again.output / "checkpoint-6" / "trainer_state.json").read_text())["best_model_checkpoint"]
    assert best == str(tmp_path / "new" / "run" / "checkpoint-6")
    assert command("eval", again.output).exit_code == 0


def test_rows_that_were_moved_elsewhere_are_known_by_what_they_hold(tmp_path):
    file = project(tmp_path / "old")
    output = train_file(file).output
    killed_after(output, 3)
    (tmp_path / "elsewhere").mkdir()
    other = write_rows(tmp_path / "elsewhere" / "rows.jsonl", rows())
    (tmp_path / "old" / "data" / "rows.jsonl").unlink()
    train_file(file, f"data.train.path={other}", overwrite=False)
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == 3
    killed_after(output, 3)
    write_rows(other, rows(seed=5))
    with pytest.raises(
        RunError, match=r"another recipe:\n  data\.train\[0\]\.source\.path: |have changed since it began"
    ):
        train_file(file, f"data.train.path={other}", overwrite=False)


def test_a_run_that_is_taken_out_of_its_project_finds_its_rows(tmp_path, command):
    output = train_file(project(tmp_path / "old")).output
    shutil.move(output, tmp_path / "alone")
    result = command("eval", tmp_path / "alone", "--json")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["tokens"] > 0


def test_a_project_with_its_model_in_it_is_moved(tmp_path, full_run):
    shutil.copytree(full_run, tmp_path / "old" / "model", ignore=shutil.ignore_patterns("run.json"))
    file = project(tmp_path / "old", model="./model")
    output = train_file(file).output
    whole = outcome(output)
    assert RunDirectory.open(output).recipe()["model"]["name_or_path"] == "../model"
    killed_after(output, 3)
    shutil.move(tmp_path / "old", tmp_path / "new")
    again = train_file(tmp_path / "new" / "recipe.yaml", f"output={tmp_path / 'new' / 'run'}", overwrite=False)
    assert outcome(again.output)[0] == whole[0]
