"""A run and whoever reads it: a pipe that closes, a terminal that closes, Ctrl-C, streams that were never there."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import rows
from patience import wait_for
from terminal import drawn
from typer.testing import CliRunner

from sftplug import RunDirectory
from sftplug.cli import app

LONG = {"max_steps": 100_000, "per_device_train_batch_size": 4, "save_strategy": "no", "logging_steps": 1}
"""More steps than anybody waits for."""
QUIET = {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def long(recipe_file, tmp_path):
    """A recipe that is still under way when it is stopped; its model and rows are there."""
    file = recipe_file(adapter="lora", train=LONG)
    assert CliRunner().invoke(app, ["prepare", str(file), "--output", str(tmp_path / "prepared")]).exit_code == 0
    return file


def start(*arguments, environment=None, **streams):
    command = [sys.executable, "-m", "sftplug", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, **QUIET, **(environment or {})}, **streams)


@pytest.mark.slow
def test_a_run_whose_output_nobody_reads_any_more_ends_in_words_and_goes_on(long, tmp_path):
    with (tmp_path / "errors").open("w") as errors:
        process = start("train", long, stdout=subprocess.PIPE, stderr=errors)
        assert any(line.startswith(b"no checkpoints are saved, but at a signal") for line in process.stdout)
        process.stdout.close()  # what `head` does
        assert wait_for(process) == 141
    said = (tmp_path / "errors").read_text()
    assert said.startswith("SIGPIPE: nobody reads the output any more: the step ends, then a checkpoint is saved.\n")
    step = int(re.search(r"checkpoint-(\d+) is saved in .*out\. Run the same command again to resume", said)[1])
    assert "interrupted by SIGPIPE (nobody reads its output any more): " in said
    assert len(said.splitlines()) == 2, said
    state = RunDirectory.open(tmp_path / "out").state()
    assert (state.state, state.steps) == ("interrupted", step)
    goes_on = CliRunner().invoke(app, ["train", str(long), "--resume", "train.max_steps=1"])
    assert "train.max_steps: 100000 -> 1" in str(goes_on.exception)  # it is there, and would resume


def test_a_run_whose_output_nobody_ever_read_says_so(long, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    process = start("train", long, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, said = process.communicate()
    assert process.returncode == 141
    assert said.decode() == (
        "nobody reads the output any more (SIGPIPE). Run the same command again to start over; there is no checkpoint "
        "yet.\n"
    )
    state = RunDirectory.open(tmp_path / "out").state()
    assert (state.state, state.steps) == ("interrupted", 0)


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_of_the_bar_on_the_screen(long, terminal, tmp_path):
    run = terminal("train", long, environment={"COLUMNS": "100", "LINES": "40"})
    run.until_seen("tokens/s")
    assert any("training \u2501" in line for line in drawn(run.shown))
    run.type("\x03")
    screen, has_cursor = run.rest()
    text = "\n".join(screen)
    assert run.process.returncode == 130, text
    assert "SIGINT: the step ends, then a checkpoint is saved; a second signal ends the run at once." in text
    assert "interrupted by SIGINT: checkpoint-" in text
    assert "\u2501" not in text
    assert "\nthe run stopped: Interrupted\n" in text
    assert has_cursor


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_a_screen_that_can_be_used(recipe_file, terminal):
    """In the midst of pretraining, and in the loop: nothing that ends the process at once can bring the cursor back."""
    model = {"build": {"type": "tiny", "pretrain_steps": 100_000, "layers": 1, "hidden_size": 32}}
    run = terminal("train", recipe_file(model=model))
    run.until_seen("pretraining the base model")
    run.type("\x03")
    screen, has_cursor = run.rest()
    assert run.process.returncode == 130
    assert has_cursor
    assert "pretraining" not in "\n".join(screen)


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_the_run_after_a_checkpoint(long, terminal, tmp_path):
    run = terminal("train", long)
    run.until_seen("tokens/s")
    assert run.close() == 129
    directory = RunDirectory.open(tmp_path / "out")
    state = directory.state()
    assert state.state == "interrupted"
    assert state.reason.startswith(f"Interrupted: interrupted by SIGHUP: checkpoint-{state.steps} is saved in ")
    assert [checkpoint.step for checkpoint in directory.checkpoints()] == [state.steps]


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_without_streams_nothing_is_written_where_they_would_be(recipe_file, tmp_path, closed):
    """The next file that is opened would be standard output, and get what is printed."""
    command = f"{sys.executable} -m sftplug train {recipe_file(train={'max_steps': 1})} {closed}"
    done = subprocess.run(["sh", "-c", command], env={**os.environ, **QUIET}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    directory = RunDirectory.open(tmp_path / "out")
    assert directory.state().state == "finished"
    assert json.loads((directory.path / "environment.json").read_text())
    assert not any(b"tokens/s" in file.read_bytes() for file in directory.path.rglob("*") if file.is_file())


STRANGE = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"COLUMNS": "7"}, {"NO_COLOR": "1"}]
"""A terminal without these letters, one of seven columns, one without colour."""


@pytest.mark.parametrize("environment", STRANGE, ids=str)
def test_any_terminal_shows_a_run_and_its_rows(recipe_file, lora_run, environment):
    data = rows(8)
    data[0]["messages"][0]["content"] = "\u00fcber \u2014 \u65e5\u672c"
    for command in (["report", lora_run], ["preview", recipe_file(data=data), "-n", "1"], ["explain", recipe_file()]):
        shown(command, environment)


@pytest.mark.slow
def test_any_terminal_shows_a_run_under_way(recipe_file):
    said = shown(
        ["train", recipe_file(adapter="lora")], {name: value for one in STRANGE for name, value in one.items()}
    )
    assert "saved" in said


def shown(command, environment):
    process = start(*command, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert output
    assert b"\x1b[" not in output
    return output.decode()
