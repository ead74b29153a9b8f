"""`sftplug runs`: the runs below a folder in a table, whatever else lies there."""

import json
import os

import pytest
from typer.testing import CliRunner

import sftplug
from sftplug.cli import app
from sftplug.run import RunDirectory, RunState


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes the folder of a run by hand, below one folder."""

    def write(name, state="finished", losses=(3.0, 1.0, 2.0), tokens=10, recipe=None, **facts):
        directory = RunDirectory(tmp_path / "all" / name)
        directory.path.mkdir(parents=True)
        directory.write_state(RunState(state, tokens=tokens, **facts))
        directory.write("recipe.yaml", recipe or {"model": {"name_or_path": "acme/tiny"}})
        directory.write("origins.json", {"seed": "default", "model.name_or_path": f"{directory.path.name}.yaml:1"})
        for step, loss in enumerate(losses, start=1):
            directory.add_metrics({"step": step, "eval_loss": loss, "eval_exact_match": loss / 4})
        return directory.path

    return write


def listed(*arguments):
    result = CliRunner().invoke(app, ["runs", *map(str, arguments)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_runs_are_listed_with_what_they_came_to(folder, tmp_path):
    chooses = {"model": {"build": {"type": "tiny"}}, "train": {"metric_for_best_model": "exact_match"}}
    first, second = folder("a", tokens=5), folder("deep/b", "failed", recipe=chooses, seconds=61.0)
    one, two = sftplug.runs(tmp_path / "all").runs
    assert (one.path, one.recipe, one.model) == (first, "a.yaml", "acme/tiny")
    assert (one.metric, one.best, one.step) == ("eval_loss", 1.0, 2)
    assert (two.path, two.model, two.state, two.seconds) == (second, "tiny", "failed", 61.0)
    assert (two.metric, two.best, two.step) == ("eval_exact_match", 0.75, 1)
    assert one.bytes == sum(file.stat().st_size for file in first.iterdir())
    lines = listed(tmp_path / "all").stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "state", "recipe"]
    assert "eval_loss 1.0000 at step 2" in lines[1]
    assert "deep/b" in lines[2]
    assert "1 min 01 s" in lines[2]
    assert "sftplug report RUN RUN" in listed(tmp_path / "all").stderr


def test_runs_are_filtered_and_sorted(folder, tmp_path):
    folder("a", tokens=5), folder("b", "failed", tokens=7)

    def names(*arguments):
        found = json.loads(listed(tmp_path / "all", "--json", *arguments).stdout)["runs"]
        return [run["recipe"] for run in found]

    assert names() == ["a.yaml", "b.yaml"]
    assert names("--sort", "tokens") == ["b.yaml", "a.yaml"]
    assert names("--state", "failed") == ["b.yaml"]
    assert names("--match", "A.YAML") == ["a.yaml"]
    with pytest.raises(ValueError, match="none of path, state"):
        sftplug.runs(tmp_path, sort="size")
    with pytest.raises(sftplug.RunError, match="is not a folder"):
        sftplug.runs(tmp_path / "gone")


def test_a_trained_run_is_listed(lora_run):
    (run,) = sftplug.runs(lora_run).runs
    assert (run.state, run.recipe, run.model) == ("finished", "lora.yaml", "tiny")
    assert run.tokens > 0
    assert run.seconds > 0
    assert run.bytes > 1000


def test_hostile_folders_get_a_line_and_do_not_stop_the_table(folder, tmp_path):
    """Links out, damaged records, a pipe that never ends, an escape sequence in a name."""
    good, elsewhere = folder("good"), tmp_path / "elsewhere"
    folder("../elsewhere/run")
    (good.parent / "out").symlink_to(elsewhere)
    for name, text in {"half": "{", "list": "[]", "newer": '{"format": 99, "state": "x"}', "deep": "[" * 99999}.items():
        (good.parent / name).mkdir()
        (good.parent / name / "run.json").write_text(text)
    linked, piped, red = folder("linked"), folder("piped"), folder("\x1b[31mred")
    (linked / "run.json").unlink()
    (linked / "run.json").symlink_to(elsewhere / "run" / "run.json")
    (piped / "metrics.jsonl").unlink()
    os.mkfifo(piped / "metrics.jsonl")
    (piped / "recipe.yaml").write_text("model: [")
    (good / "recipe.yaml").write_text("model: [1]")
    (good / "origins.json").write_text("[1]")
    result = listed(tmp_path / "all")
    assert "\x1b" not in result.output
    assert len(result.stdout.splitlines()) == 1 + 3
    for name in (
        "out is a link",
        "half",
        "list",
        "newer",
        "deep",
        "linked/run.json is not",
        "piped/metrics.jsonl is",
        "good/origins.json does not hold",
    ):
        assert f"{good.parent}/{name}" in result.stderr
    runs = sftplug.runs(tmp_path / "all").runs
    assert [run.path for run in runs] == [red, good, piped]
    assert (runs[1].recipe, runs[1].model) == (None, None)
