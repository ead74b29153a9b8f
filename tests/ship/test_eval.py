"""What is measured on held-out rows is what a sum by hand gives, and no logits are kept."""

import json
import math
import re
import shutil
import weakref
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import rows, write_rows
from transformers import AutoTokenizer

import sftplug
from sftplug import DataError
from sftplug.recipe import load_recipe
from sftplug.run import RunDirectory
from sftplug.ship.evaluate import score
from sftplug.ship.replies import Answering, places
from sftplug.ship.tuned import load_tuned
from sftplug.training.collator import Collator
from sftplug.types.loss_groups import LossGroups


def held_out(run):
    return sftplug.prepare(run / "recipe.yaml", provenance=True).eval


def by_hand(run):
    """Return mean loss, accuracy and number of the trained tokens of the held-out rows, a row at a time."""
    model = load_tuned(RunDirectory(run), load_recipe(str(run / "recipe.yaml")).recipe)
    loss = right = count = 0
    for row in held_out(run):
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].double()
        for at, label in enumerate(row["labels"][1:]):
            if label != -100:
                loss -= float(logits[at].log_softmax(-1)[label])
                right += int(logits[at].argmax()) == label
                count += 1
    return loss / count, right / count, count


def test_loss_perplexity_and_accuracy_are_those_of_a_sum_by_hand(lora_run, command):
    loss, accuracy, count = by_hand(lora_run)
    result = command("eval", lora_run, "--json", "--batch-size", 3)
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["loss"] == pytest.approx(loss, abs=1e-5)
    assert told["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert (told["accuracy"], told["tokens"]) == (pytest.approx(accuracy), count)
    assert told["measured_on"] == "held-out rows"
    assert told["by"]["source"]["rows.jsonl"]["tokens"] == told["by"]["role"]["assistant"]["tokens"] == count
    parts = told["by"]["part"]
    assert set(parts) == {"content", "end_of_turn"}
    assert sum(part["loss"] * part["tokens"] for part in parts.values()) / count == pytest.approx(loss, abs=1e-5)


def test_other_rows_and_replies_to_some_of_them(lora_run, command, tmp_path):
    write_rows(tmp_path / "others.jsonl", rows(5, seed=4))
    before = list(RunDirectory(lora_run).metrics())
    arguments = ("--data", tmp_path / "others.jsonl", "--format", "messages", "--metrics", "exact_match,token_f1")
    arguments += ("--replies", 3, "--max-new-tokens", 8)
    told = json.loads(command("eval", lora_run, *arguments, "--json").output)
    assert (told["rows"], told["measured_on"], told["replies"]) == (5, "given rows", 3)
    mean = told["metrics"]["token_f1"]["mean"]
    assert 0 <= mean <= 1
    by_source = {"others.jsonl": {"mean": mean, "rows": 3}}
    assert told["metrics"]["token_f1"] == {"mean": mean, "rows": 3, "by_source": by_source}
    shown = command("eval", lora_run, *arguments).output
    assert shown.split()[:4] == ["loss", "perplexity", "accuracy", "tokens"]
    assert "source others.jsonl" in shown
    assert "on 5 given rows" in shown
    assert re.search(rf"token_f1 +all +{mean:.4f} +3\n", shown)
    assert "replies to 3 of 5 given rows" in shown
    assert list(RunDirectory(lora_run).metrics()) == before  # the metrics of the run are those of its own rows


def test_the_recipe_s_metrics_are_measured_when_training_is_over_and_again_by_eval(recipe_file, command, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write_rows(tmp_path / f"{name}.jsonl", rows(3, seed=seed))
    eval_rows = [{"path": str(tmp_path / f"{name}.jsonl"), "format": "messages"} for name in "ab"]
    file = recipe_file(
        adapter="lora",
        evaluation={"metrics": ["exact_match", {"regex": "is"}], "rows": 4, "max_new_tokens": 6},
    )
    result = command("train", file, f"data.eval={json.dumps(eval_rows)}")
    assert result.exit_code == 0, result.output
    assert "replies to 4 of 6 held-out rows" in result.output
    directory = RunDirectory.open(tmp_path / "out")
    *_, line = directory.metrics()
    assert (line["step"], line["eval_exact_match_rows"], line["eval_regex_rows/a.jsonl"]) == (4, 4, 2)
    parts = [line[f"eval_regex/{name}.jsonl"] for name in "ab"]
    assert line["eval_regex"] == sum(parts) / 2
    assert f"| eval_regex | {line['eval_regex']:.4f} |" in (tmp_path / "out" / "README.md").read_text()
    assert command("eval", tmp_path / "out").exit_code == 0
    *_, again = directory.metrics()
    assert again == line


def test_a_metric_that_cannot_score_costs_the_run_nothing(recipe_file, command, tmp_path):
    file = recipe_file(adapter="lora", evaluation={"metrics": "json_equal", "max_new_tokens": 2})
    result = command("train", file, "data.eval_fraction=0.25")
    assert isinstance(result.exception, DataError)
    assert re.match(
        r"rows\.jsonl:\d+: the metric 'json_equal' cannot score this row: its reference is not a JSON text: "
        r"Expecting value: line 1 column 1 \(char 0\)\. Fix the row, or leave the metric out\.",
        str(result.exception),
    )
    saved = f"The run itself is over: its result is saved in {tmp_path / 'out'}. `sftplug eval` measures it anew."
    assert result.exception.__notes__ == [saved]
    assert RunDirectory.open(tmp_path / "out").state().state == "finished"


def test_replies_without_rows_to_answer_or_without_anything_before_them(recipe_file, command, lora_run, tmp_path):
    error = command("check", recipe_file(evaluation={"metrics": "exact_match"})).exception
    assert "evaluation.metrics: no rows are held out" in str(error)
    shutil.copytree(lora_run, run := tmp_path / "run")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("type: assistant", "type: all"))
    error = command("eval", run, "--metrics", "exact_match").exception
    assert str(error) == "none of these rows has a trained reply with something before it, so nothing can be answered."


def test_replies_are_the_same_one_by_one_and_in_batches(lora_run):
    model = load_tuned(RunDirectory(lora_run), load_recipe(str(lora_run / "recipe.yaml")).recipe)
    tokenizer = AutoTokenizer.from_pretrained(lora_run)
    prompts = [place.prompt for place in places(held_out(lora_run), None)]
    assert len({len(prompt) for prompt in prompts}) > 1  # shorter ones are padded
    together = Answering(model, tokenizer, [3], 8, 12).answer(prompts)
    alone = [Answering(model, tokenizer, [3], 1, 12).answer([prompt])[0] for prompt in prompts]
    assert together == alone
    assert any(together)


def test_rows_to_answer_are_spread_evenly_and_the_last_trained_stretch_is_asked_for():
    row = {"input_ids": [5, 6, 7, 8, 9, 10], "labels": [-100, 6, -100, 8, 9, -100], "provenance": [64 * 2] * 6}
    (place,) = places([row], None)
    assert (place.prompt, place.reply, place.group) == ([5, 6, 7], [8, 9], 2)
    assert [place.row for place in places([row] * 10, 4)] == [0, 2, 5, 7]
    assert list(places([{**row, "labels": [-100] * 6}, {**row, "labels": row["input_ids"]}], None)) == []


class Parrot(torch.nn.Module):
    """Says what comes next, and remembers whether its logits are still held."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.held = []

    def forward(self, input_ids, attention_mask, use_cache):
        assert not any(logits() is not None for logits in self.held), "logits outlived their batch"
        logits = torch.nn.functional.one_hot(input_ids.roll(-1, 1), 2000).float() * 30
        self.held.append(weakref.ref(logits))
        return SimpleNamespace(logits=logits)


def test_no_logits_are_held_beyond_their_batch(lora_run):
    known = list(held_out(lora_run))
    parrot = Parrot()
    scores = score(parrot, known, Collator(0), LossGroups.of(["rows.jsonl"]), 2)
    assert len(parrot.held) >= 2
    assert scores.to_dict()["accuracy"] == 1.0
    assert scores.to_dict()["loss"] < 1e-6


def test_a_run_that_evaluated_is_measured_on_other_rows(lora_run, command, tmp_path):
    run = shutil.copytree(lora_run, tmp_path / "run")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["train"]["eval_strategy"] = "epoch"
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows_file = lora_run.parent / "rows.jsonl"
    result = command("eval", run, "--data", rows_file, "--format", "messages", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["measured_on"], said["rows"]) == ("given rows", 24)


def test_a_run_that_held_nothing_out_needs_rows(lora_run, command, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(lora_run, run)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("eval_fraction: 0.25", "eval_fraction: 0.0"))
    error = command("eval", run).exception
    assert isinstance(error, DataError)
    assert str(error).endswith(
        "held no rows out. Rows to measure on can be given with --data FILE --format NAME, from Python with `data` and "
        "`format`."
    )
