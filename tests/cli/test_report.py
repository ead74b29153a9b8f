"""`sftplug report`: what is in a run's folder, as a page in a real browser and as text in the terminal."""

import json
import math
import re

import pytest
import yaml
from browser import HOSTILE, Page, needs_browser, shown
from conftest import rows
from typer.testing import CliRunner

from sftplug import RunError
from sftplug.cli import app
from sftplug.cli.report import sparkline
from sftplug.reporting.chart import short, thinned, ticks
from sftplug.run import RunDirectory, RunState

runner = CliRunner()


def report(*arguments):
    result = runner.invoke(app, ["report", *map(str, arguments)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def refused(*arguments):
    result = runner.invoke(app, ["report", *map(str, arguments)])
    assert result.exit_code
    return str(result.exception or result.output)


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes the folder of a run by hand."""

    def write(name, losses=(3.0, 2.0, 1.0), state="finished", recipe=None, **facts):
        directory = RunDirectory(tmp_path / name)
        directory.path.mkdir()
        attempts = [{"started": "2026-01-01T00:00:00+00:00", "from_step": 0}]
        directory.write_state(RunState(state, steps=len(losses), seconds=4.0, tokens=400, attempts=attempts, **facts))
        directory.write("origins.json", {"train.learning_rate": f"{name}.yaml:7"})
        recipe = {"train": {"learning_rate": 1e-3, "seed": 1}, "adapter": {"type": "lora", "r": 8}, **(recipe or {})}
        (directory.path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        for step, loss in enumerate(losses, 1):
            entry = {"step": step, "seconds": float(step), "num_tokens": 100.0 * step, "loss": loss}
            directory.add_metrics({**entry, "learning_rate": 1e-3 / step, "peak_bytes": 10**9 + step})
        return directory

    return write


def test_a_run_in_the_terminal(recipe_file, run, tmp_path):
    prompts = ["Question 1: red or blue?"]
    run(recipe_file(callbacks=[{"type": "samples", "prompts": prompts, "max_new_tokens": 4}]), "data.eval_fraction=0.2")
    output = report(tmp_path / "out")
    assert re.search(r"^state +finished$", output, re.M)
    assert re.search(r"^steps +4$", output, re.M)
    assert re.search(r"^loss +\d\.\d{3} [▁-█]{4} \d\.\d{3}$", output, re.M)
    assert re.search(r"^eval loss +\d\.\d{4}, lowest \d\.\d{4} at step 4$", output, re.M)
    assert re.search(r"^train +\S*rows.jsonl +\d+ +\d+ +0 ", output, re.M)
    assert "Question 1: red or blue?\n  step 0: " in output
    assert "  step 4: " in output


def test_several_runs_side_by_side_with_what_differs(folder):
    first, second = folder("first"), folder("second", recipe={"adapter": {"type": "lora", "r": 16}})
    output = report(first.path, second.path)
    assert re.search(r"^ +first +second$", output, re.M)
    assert re.search(r"^adapter.r +8 +16$", output, re.M)
    assert "train.seed" not in output
    same = report(first.path, folder("third").path)
    assert "nothing but the output folder" in same


def test_a_run_that_failed_or_never_came_so_far_is_told_in_words(folder, tmp_path):
    failed = folder("failed", losses=(2.0, math.nan), state="failed", reason="TrainingError: the loss is nan")
    output = report(failed.path)
    assert re.search(r"^because +TrainingError: the loss is nan$", output, re.M)
    assert "has no ledger.json: the run did not come so far." in output
    begun = RunDirectory(tmp_path / "begun")
    begun.path.mkdir()
    begun.write_state(RunState("running"))
    page = tmp_path / "page.html"
    report(begun.path, "--html", page)
    text = Page(page.read_text()).text
    assert "running, or killed" in text
    assert "Nothing was logged yet." in text
    assert "has no recipe.yaml: the run did not come so far." in text


def test_folders_that_hold_no_run_are_refused(folder, tmp_path):
    assert "is not a folder of a run: it has no run.json." in refused(tmp_path)
    (tmp_path / "other").mkdir()
    for text, words in (
        ("[]", "is not one that sftplug writes"),
        ("{", "cannot be read"),
        ('{"steps": 1}', "is not one"),
    ):
        (tmp_path / "other" / "run.json").write_text(text)
        assert words in refused(tmp_path / "other")
    (tmp_path / "other" / "run.json").write_text('{"format": 99, "state": "finished"}')
    assert "was written by a newer sftplug (format 99, known up to 1)" in refused(tmp_path / "other")
    nowhere = runner.invoke(app, ["report", str(tmp_path), "--html", "/gone/x.html"])
    assert "there is no folder /gone" in str(nowhere.exception)


def test_of_a_folder_of_runs_all_are_shown_and_what_is_none_is_named(folder, tmp_path):
    for name in ("a", "b"):
        folder(name)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "run.json").write_text('{"format": 1, "sta')
    for listed in ([tmp_path], sorted(tmp_path.iterdir())):
        result = runner.invoke(app, ["report", *map(str, listed)])
        assert result.exit_code == 0, result.exception
        assert re.search(r"^ +a +b$", result.stdout, re.M)
        told = result.stderr.splitlines()
        assert len(told) == 2
        assert f"left out: {tmp_path}/cut/run.json cannot be read: " in told[0]
        assert told[1] == f"left out: {tmp_path}/notes.txt is not a folder of a run: it has no run.json."
    for number in range(20):
        (tmp_path / f"more{number}").mkdir()
    told = runner.invoke(app, ["report", str(tmp_path)]).stderr.splitlines()
    assert (len(told), told[-1]) == (11, "left out: 12 more")
    assert "gone is not a folder of a run: there is nothing of that name." in refused(tmp_path, tmp_path / "gone")


def test_a_run_is_shown_once_by_its_own_name(folder, tmp_path):
    for name in ("a", "b"):
        folder(name)
    (tmp_path / "B-latest").symlink_to("b")
    (tmp_path / "gone").symlink_to("nowhere")
    result = runner.invoke(app, ["report", str(tmp_path), str(tmp_path / "a")])
    assert result.exit_code == 0, result.exception
    assert re.search(r"^ +a +b$", result.stdout, re.M)
    assert result.stderr.splitlines() == [
        f"left out: {tmp_path}/gone is a link that leads nowhere.",
        f"left out: {tmp_path}/B-latest is the run {tmp_path}/b, which is shown.",
    ]


def test_the_share_of_trained_tokens_is_a_share_whatever_they_weigh(recipe_file, run, folder, tmp_path):
    """Weights of 3 for every token: all of them are trained, and none is trained three times."""
    masking = [{"type": "all"}, {"type": "regex", "pattern": "(?s).", "weight": 3.0}]
    run(recipe_file(masking=masking, data=rows(4)), "train.max_steps=1")
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())["splits"]["train"][0]
    assert ledger["trained_share"] == ledger["trained_tokens"] / ledger["tokens"] <= 1
    assert ledger["trained"] > ledger["tokens"]
    said = report(tmp_path / "out")
    assert f" {ledger['trained_tokens']:,} ({ledger['trained_share']:.1%}), weight {ledger['trained']:,.0f} " in said
    older = folder("older")
    older.write("ledger.json", {"splits": {"train": [{"tokens": 201, "trained": 345.0, "trained_share": 1.716}]}})
    assert re.search(r" 201 +weight 345 +0", report(older.path))


def test_lines_that_are_damaged_are_named_and_left_out(folder, tmp_path):
    damaged, whole = folder("damaged"), folder("whole")
    file = damaged.path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:4] + b"\n" + b"\0\0\n[3]\n" + lines[2] + b'{"step": 4, "lo')
    output = report(damaged.path, whole.path)
    for line, why in ((2, "Unterminated string"), (3, "Expecting value"), (4, "it is not a JSON object")):
        assert f"line {line} of {file} cannot be read: {why}" in output
    assert "line 5" not in output
    assert re.search(r"^last loss +1.0000 +1.0000$", output, re.M)
    page = tmp_path / "page.html"
    report(damaged.path, "--html", page)
    assert f"line 2 of {file} cannot be read" in Page(page.read_text()).text
    with pytest.raises(RunError, match=r"line 2 of .*metrics\.jsonl cannot be read: .*\. Fix it, or start over\."):
        list(damaged.metrics())


def test_a_run_under_way_is_as_far_as_its_measurements(folder):
    """`run.json` is written with every checkpoint, and when the run ends; the curves go on meanwhile."""
    directory = folder("resumed", state="running", max_steps=9)
    state = directory.state()
    state.steps, state.seconds, state.tokens = 2, 2.0, 200
    state.attempts = [{"from_step": 0}, {"from_step": 2}]
    directory.write_state(state)
    output = report(directory.path)
    assert re.search(r"^state +running, or killed$", output, re.M)
    assert re.search(r"^steps +3 of 9$", output, re.M)
    assert re.search(r"^tokens +300$", output, re.M)
    assert re.search(r"^time in the loop +3.0 s$", output, re.M)
    assert re.search(r"^attempts +2, from steps 0, 2$", output, re.M)


def test_rows_whose_source_is_gone_or_has_changed_are_left_out_with_the_reason(recipe_file, run, tmp_path):
    file = recipe_file()
    run(file)
    page = tmp_path / "page.html"
    report(tmp_path / "out", "--html", page, "-n", 2)
    assert len(Page(page.read_text()).all("section", "row")) == 2
    report(tmp_path / "out", "--html", page, "-n", 0)
    assert not Page(page.read_text()).all("section", "row")
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    report(tmp_path / "out", "--html", page)
    text = Page(page.read_text()).text
    assert "They cannot be drawn: the rows of the run in" in text
    assert "have changed since it began" in text


def test_packed_rows_are_drawn_as_the_trainer_got_them(recipe_file, run, prepared, tmp_path):
    options = ["data.packing=rows", "data.max_length=128"]
    file = recipe_file(data=rows(8))
    run(file, *options)
    page = tmp_path / "page.html"
    report(tmp_path / "out", "--html", page, "-n", 2)
    found = Page(page.read_text())
    trained = prepared(file, *options).train[:2]
    ids = [int(re.match(r"id (\d+) ", about)[1]) for about in found.titles]
    assert ids == [number for row in trained["input_ids"] for number in row]
    weights = [" · weight 1 · " in about for about in found.titles]
    assert weights == [label != -100 for row in trained["labels"] for label in row]
    assert len(found.all("span", "border")) == sum(len(row) - 1 for row in trained["seq_lengths"])


@needs_browser
def test_the_page_in_a_real_browser_with_hostile_rows_prompts_and_values(recipe_file, run, folder, tmp_path):
    data = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"reply {text}"}]}
        for text in [*HOSTILE, *HOSTILE]
    ]
    samples = {"type": "samples", "prompts": HOSTILE, "max_new_tokens": 4}
    run(
        recipe_file(data=data, callbacks=[samples], train={"max_steps": 6, "logging_steps": 1, "run_name": HOSTILE[1]}),
        "data.eval_fraction=0.3",
        "train.eval_strategy=steps",
        "train.eval_steps=2",
    )
    other = folder("other", reason=HOSTILE[0], state="failed", recipe={"output": HOSTILE[2], HOSTILE[1]: HOSTILE[0]})
    page = tmp_path / "page.html"
    report(tmp_path / "out", other.path, "--html", page)
    source = shown(page, tmp_path / "profile")
    found = Page(source)
    assert "pwned" not in source.split("</title>")[0]
    assert found.is_inert()
    assert found.all("meta")[-1]["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert len(found.all("h1")) == 1
    for text in (*HOSTILE[:3], HOSTILE[3], HOSTILE[5]):
        assert text in found.text
    lines = {(keys["data-run"], int(keys["data-points"])) for keys in found.all("polyline")}
    assert lines == {("out", 6), ("other", 3), ("out, evaluation", 3), ("out", 9)}  # memory after evaluations too
    assert [keys["aria-label"] for keys in found.all("svg")][:4] == [
        "Loss over steps",
        "Learning rate over steps",
        "Tokens per second over steps",
        "Peak memory so far over steps",
    ]
    assert len(found.all("path", "mark")) == 3
    assert all(
        math.isfinite(float(number)) for keys in found.all("polyline") for number in re.split("[ ,]", keys["points"])
    )
    assert "out, step 1: " in found.text
    assert found.all("table", "ledger")
    assert found.all("table", "recipe")
    assert found.all("table", "differences")
    assert len(found.all("section", "row")) == 3


def test_speed_is_told_between_logs_without_the_evaluation_between(folder):
    from sftplug.reporting import collect

    run = folder("run", losses=())
    for entry in (
        {"step": 1, "seconds": 1.0, "num_tokens": 100.0},
        {"step": 1, "seconds": 9.0, "eval_loss": 1.0, "eval_num_tokens": 100.0},
        {"step": 2, "seconds": 10.0, "num_tokens": 300.0},
    ):
        run.add_metrics(entry)
    (found,) = collect([run.path])
    assert found.speed() == [(1.0, 100.0), (2.0, 200.0)]


def test_a_last_line_that_a_dying_run_did_not_finish_is_left_out(folder):
    run = folder("run")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert re.search(r"^last loss +1.0000$", report(run.path), re.M)


def test_what_metrics_say_of_replies_is_told_with_their_number(folder):
    run = folder("run")
    for share in (0.25, 0.5):
        run.add_metrics({"step": 3, "eval_exact_match": share, "eval_exact_match_rows": 8, "eval_exact_match/a": 1.0})
    text = report(run.path)
    assert re.search(r"^exact_match +0.5000 of 8 replies$", text, re.M)
    assert "exact_match/a" not in text


def test_curves_keep_their_peaks_when_they_are_thinned():
    points = [(float(step), float(step == 5003)) for step in range(20_000)]
    kept = thinned(points, 600)
    assert len(kept) <= 600
    assert (5003.0, 1.0) in kept
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:600], 600) == points[:600]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.3, 7, [0, 2, 4, 6]), (1, 2, [1.0, 1.2, 1.4, 1.6, 1.8, 2.0])],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_steps_have_whole_ticks():
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert ticks(1, 148, whole=True) == [25, 50, 75, 100, 125]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.25, "0.25"), (5e-5, "5e-5"), (12_000, "12k"), (3.5e6, "3.5M"), (2e9, "2G"), (2000, "2000")],
)
def test_numbers_at_axes_are_short(value, expected):
    assert short(value) == expected


def test_a_sparkline_has_first_and_last_value():
    assert sparkline([3.0, 2.0, 1.0]) == "3.000 █▅▁ 1.000"
    assert len(sparkline([float(number) for number in range(1000)])) == len("0.000 ") + 40 + len(" 999.000")
    assert json.dumps(sparkline([1.0, 1.0])) == '"1.000 \\u2581\\u2581 1.000"'
