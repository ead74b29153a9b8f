"""What is measured on held-out rows is what a sum by hand gives, and no logits are kept."""

import json
import math
import weakref
from types import SimpleNamespace

import pytest
import torch
from conftest import rows, write_rows

from sftplug import DataError
from sftplug.collate import Collator
from sftplug.recipe import load_recipe
from sftplug.run import RunDirectory
from sftplug.ship.evaluate import exact_match, score
from sftplug.ship.tuned import load_tuned


def held_out(run):
    from sftplug.data.prepare import prepare
    from sftplug.models import load_tokenizer

    recipe = load_recipe(str(run / "recipe.yaml")).recipe
    return prepare(recipe, load_tokenizer(recipe), provenance=True).eval


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
    assert result.exit_code == 0, result.exception
    told = json.loads(result.output)
    assert told["loss"] == pytest.approx(loss, abs=1e-5)
    assert told["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert (told["accuracy"], told["tokens"]) == (pytest.approx(accuracy), count)
    assert told["measured_on"] == "held-out rows"
    assert told["by"]["source"]["rows.jsonl"]["tokens"] == told["by"]["role"]["assistant"]["tokens"] == count
    parts = told["by"]["part"]
    assert set(parts) == {"content", "end_of_turn"}
    assert sum(part["loss"] * part["tokens"] for part in parts.values()) / count == pytest.approx(loss, abs=1e-5)


def test_other_rows_several_of_them_and_exact_replies(lora_run, command, tmp_path):
    write_rows(tmp_path / "others.jsonl", rows(5, seed=4))
    arguments = ("--data", tmp_path / "others.jsonl", "--format", "messages", "--exact-match", 3)
    told = json.loads(command("eval", lora_run, *arguments, "--json").output)
    assert (told["rows"], told["measured_on"], told["exact_match"]["rows"]) == (5, "given rows", 3)
    shown = command("eval", lora_run, *arguments).output
    assert shown.split()[:4] == ["loss", "perplexity", "accuracy", "tokens"]
    assert "source others.jsonl" in shown
    assert f"exact match: {told['exact_match']['right']} of 3 replies" in shown
    assert "on 5 given rows" in shown


class Parrot(torch.nn.Module):
    """Says what comes next in the rows that it knows, and remembers whether its logits are still held."""

    device = torch.device("cpu")

    def __init__(self, rows):
        super().__init__()
        self.rows, self.held = rows, []

    def forward(self, input_ids, attention_mask, use_cache):
        assert not any(logits() is not None for logits in self.held), "logits outlived their batch"
        logits = torch.nn.functional.one_hot(input_ids.roll(-1, 1), 2000).float() * 30
        self.held.append(weakref.ref(logits))
        return SimpleNamespace(logits=logits)

    def generate(self, input_ids, max_new_tokens, **options):
        known = next(row for row in self.rows if row[: input_ids.shape[1]] == input_ids[0].tolist())
        return torch.tensor([known[: input_ids.shape[1] + max_new_tokens]])


def test_no_logits_are_held_beyond_their_batch_and_replies_are_compared_word_for_word(lora_run):
    from transformers import AutoTokenizer

    known = list(held_out(lora_run))
    parrot = Parrot([row["input_ids"] for row in known])
    scores = score(parrot, known, Collator(0), ["rows.jsonl"], 2)
    assert len(parrot.held) >= 2
    assert scores.to_dict()["accuracy"] == 1.0
    assert scores.to_dict()["loss"] < 1e-6
    tokenizer = AutoTokenizer.from_pretrained(lora_run)
    assert exact_match(parrot, tokenizer, [3], known) == (len(known), len(known))
    parrot.rows = [[*row[:-3], 99, *row[-2:]] for row in parrot.rows]
    assert exact_match(parrot, tokenizer, [3], known) == (0, len(known))


def test_a_run_that_held_nothing_out_needs_rows(lora_run, command, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(lora_run, run)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("eval_fraction: 0.25", "eval_fraction: 0.0"))
    error = command("eval", run).exception
    assert isinstance(error, DataError)
    assert str(error).endswith("held no rows out. Rows to measure on can be given with --data FILE --format NAME.")
