"""Every moment is told to the plugins in use, with what is done, to which run, and whether it goes on from before."""

import json
import os
import re
import subprocess
import sys

import pytest

from sftplug import PluginError

WITNESS = '''
"""It writes down what it is told."""
import json
from pathlib import Path

import sftplug

HERE = Path('HERE')


def note(moment, context, **details):
    known = {"moment": moment, "command": context.command, "run": context.run, "resumed": context.resumed}
    folder = context.folder and Path(context.folder).name
    with (HERE / "seen.jsonl").open("a") as stream:
        stream.write(json.dumps({**known, "folder": folder, **details}) + "\\n")
    if (HERE / f"fail at {moment}").exists():
        raise ZeroDivisionError(moment)


@sftplug.hookimpl
def sftplug_recipe_loaded(recipe, origins, context):
    note("loaded", context, adapter=recipe.adapter.type)


@sftplug.hookimpl
def sftplug_dataset_prepared(ledger, context):
    note("prepared", context, kept=sum(account.kept for _, account in ledger.accounts()))


@sftplug.hookimpl
def sftplug_trainer_created(trainer, context):
    note("created", context, steps=trainer.args.max_steps)


@sftplug.hookimpl
def sftplug_evaluation_finished(recipe, metrics, step, context):
    note("evaluated", context, step=step, metrics=dict(metrics))


@sftplug.hookimpl
def sftplug_checkpoint_saved(checkpoint, step, context):
    note("saved", context, step=step, whole=(checkpoint / "sealed.json").is_file(), name=checkpoint.name)


@sftplug.hookimpl
def sftplug_run_finished(result, context):
    note("finished", context, loss=result.loss)


@sftplug.hookimpl
def sftplug_run_failed(error, context):
    note("failed", context, error=str(error))


@sftplug.hookimpl
def sftplug_model_merged(folder, record, context):
    note("merged", context, target=str(folder), dtype=record["dtype"])


@sftplug.hookimpl
def sftplug_model_exported(exporter, target, context):
    note("exported", context, exporter=exporter, target=str(target))


@sftplug.hookimpl
def sftplug_model_pushed(url, files, context):
    note("pushed", context, url=url, files=list(files))
'''


@pytest.fixture
def witness(recipe_file, tmp_path):
    """A recipe that the witness watches: two steps, each with a checkpoint and an evaluation."""
    (tmp_path / "witness.py").write_text(WITNESS.replace("'HERE'", repr(str(tmp_path))))
    return recipe_file(
        data=None,
        adapter="lora",
        train={
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "save_strategy": "steps",
            "save_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 1,
        },
        evaluation={"metrics": "contains", "rows": 2, "max_new_tokens": 2},
        plugins=["./witness.py"],
    )


HELD_OUT = "data.eval_fraction=0.25"


def seen(folder):
    file = folder / "seen.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.unlink()
    return lines


def test_before_there_is_a_run_only_the_command_is_told(witness, command, tmp_path):
    assert command("check", witness, HELD_OUT).exit_code == 0
    first, second = seen(tmp_path)
    assert (first["moment"], first["command"], first["run"], first["folder"]) == ("loaded", "check", None, None)
    assert (second["moment"], second["command"], second["kept"]) == ("prepared", "check", 24)
    assert command("prepare", witness, HELD_OUT, "--output", tmp_path / "prepared").exit_code == 0
    assert [(line["moment"], line["command"]) for line in seen(tmp_path)] == [("prepared", "prepare")]


def test_every_moment_of_a_training_that_fails_over_a_plugin_and_is_resumed(witness, command, tmp_path):
    (tmp_path / "fail at saved").touch()
    error = command("train", witness, HELD_OUT).exception
    assert isinstance(error, PluginError)
    assert error.exit_code == 1
    assert re.search(r"sftplug_checkpoint_saved\(\) failed: ZeroDivisionError: saved \(.*witness.py:\d+\)", str(error))
    begun = seen(tmp_path)
    assert [line["moment"] for line in begun] == ["loaded", "prepared", "created", "evaluated", "saved", "failed"]
    assert begun[3]["step"] == 1
    assert begun[3]["metrics"]["eval_loss"] > 0

    (tmp_path / "fail at saved").unlink()
    result = command("train", witness, HELD_OUT)
    assert result.exit_code == 0, result.exception
    lines = seen(tmp_path)
    told = ["loaded", "prepared", "created", "evaluated", "saved", "finished", "evaluated"]
    assert [line["moment"] for line in lines] == told
    assert (lines[4]["step"], lines[4]["name"], lines[4]["whole"]) == (2, "checkpoint-2", True)
    assert lines[5]["loss"] > 0
    assert lines[6]["metrics"].keys() == {"eval_contains", "eval_contains_rows"}
    known = json.loads((tmp_path / "out" / "run.json").read_text())["id"]
    assert {(line["command"], line["run"], line["folder"]) for line in begun + lines} == {("train", known, "out")}
    assert [{line["resumed"] for line in attempt} for attempt in (begun, lines)] == [{False}, {True}]


def test_every_moment_of_what_is_done_with_a_run(witness, run, command, hub, tmp_path):
    out = run(witness, HELD_OUT).output
    seen(tmp_path)
    for words in (("eval", out), ("merge", out, "--output", tmp_path / "merged"), ("export", out, "zip")):
        assert command(*words).exit_code == 0
    address, uploaded = hub
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_TOKEN": "hf_login"}
    words = [sys.executable, "-m", "sftplug", "push", str(tmp_path / "merged"), "me/model"]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = seen(tmp_path)
    measured, merged, exported, pushed = lines
    assert [line["moment"] for line in lines] == ["evaluated", "merged", "exported", "pushed"]
    assert [line["command"] for line in lines] == ["eval", "merge", "export", "push"]
    known = json.loads((out / "run.json").read_text())["id"]
    assert {(line["run"], line["resumed"], line["folder"]) for line in lines} == {(known, False, "out")}
    assert {"eval_loss", "eval_perplexity", "eval_accuracy", "eval_contains"} <= measured["metrics"].keys()
    assert (merged["target"], merged["dtype"]) == (str(tmp_path / "merged"), "float32")
    assert (exported["exporter"], exported["target"]) == ("zip", str(out / "exports" / "zip.zip"))
    assert pushed["url"].startswith(address)
    assert set(pushed["files"]) == set(uploaded["files"]) >= {"model.safetensors", "README.md"}
    assert not [name for name in pushed["files"] if name.startswith(".")]


DEEDS = {
    "merged": (("merge", "RUN", "--output", "merged"), "The model is merged all the same: it is in merged."),
    "exported": (("export", "RUN", "zip"), "The model is exported all the same: "),
    "evaluated": (("eval", "RUN"), "What was measured is in the record of the run all the same."),
}


def test_what_is_done_stays_done_where_a_plugin_fails_when_it_is_told(witness, run, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run(witness, HELD_OUT, "evaluation.metrics=[]").output
    for moment, (words, note) in DEEDS.items():
        (tmp_path / f"fail at {moment}").touch()
        result = command(*(output if word == "RUN" else word for word in words))
        assert isinstance(result.exception, PluginError), moment
        assert f"failed: ZeroDivisionError: {moment}" in str(result.exception)
        assert any(note in said for said in result.exception.__notes__)
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    assert (output / "exports" / "zip.zip").is_file()


def test_the_journal_tells_what_was_done_with_a_run(recipe_file, run, command, tmp_path):
    file = recipe_file(adapter="lora", train={"max_steps": 2}, plugins=["journal"])
    output = run(file, "train.per_device_train_batch_size=4").output
    assert command("export", output, "folder").exit_code == 0
    lines = [json.loads(line) for line in (output / "journal.jsonl").read_text().splitlines()]
    told = [(line["moment"], line["command"]) for line in lines]
    begun = [("training begins", "train"), ("checkpoint saved", "train"), ("training finished", "train")]
    assert told == [*begun, ("exported", "export")]
    assert {line["run"] for line in lines} == {json.loads((output / "run.json").read_text())["id"]}
    assert not (output / "exports" / "folder" / "journal.jsonl").exists()
    # It is of the run, which is deleted with it.
    assert run(file, "train.per_device_train_batch_size=4").output == output
    assert len((output / "journal.jsonl").read_text().splitlines()) == 3


def test_a_plugin_takes_of_a_moment_what_it_needs(recipe_file, run, tmp_path):
    (tmp_path / "old.py").write_text(
        "from pathlib import Path\nimport sftplug\n"
        "@sftplug.hookimpl\ndef sftplug_run_finished(recipe):\n    Path(recipe.output, 'told').touch()\n"
        "@sftplug.hookimpl\ndef sftplug_checkpoint_saved(step):\n"
        "    (Path(__file__).parent / 'steps').write_text(str(step))\n"
    )
    output = run(recipe_file(plugins=["./old.py"], train={"max_steps": 2}), f"output={tmp_path / 'out'}").output
    assert (output / "told").exists()
    assert (tmp_path / "steps").read_text() == "2"
