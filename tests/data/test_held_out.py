"""Held-out rows that are trained on too are told."""

import pytest
from conftest import TINY, rows, write_rows

import sftplug
from sftplug.types.ledger import Ledger


@pytest.fixture
def ready(tmp_path):
    """Return a function that prepares training and held-out rows."""

    def prepare(train, held_out, **data):
        sections = {"train": {"path": str(write_rows(tmp_path / "train.jsonl", train))}, **data}
        if held_out:
            sections["eval"] = {"path": str(write_rows(tmp_path / "held.jsonl", held_out))}
        recipe = {"model": {"build": TINY}, "data": sections, "chat_template": "chatml"}
        return sftplug.prepare(sftplug.load(recipe))

    return prepare


def test_equal_rows_are_counted_and_told_with_their_origins_and_a_way_out_that_works(ready):
    told = ready(rows(20), [*rows(2, seed=7), *rows(20)[:3]])
    account = told.ledger.splits["eval"][0]
    assert account.noted == {"held out and trained": 3}
    (group,) = account.groups["held out and trained"].largest()
    assert group.origins == ["held.jsonl:3", "held.jsonl:4", "held.jsonl:5"]
    assert group.text.endswith("`data.process: decontaminate` leaves such rows out of training.")
    again = ready(rows(20), [*rows(2, seed=7), *rows(20)[:3]], process="decontaminate")
    assert (len(again.train), len(again.eval)) == (17, 5)
    assert not again.ledger.splits["eval"][0].noted
    assert Ledger.from_state(told.ledger.to_state()).splits["eval"][0].noted == account.noted


def test_a_fraction_that_is_drawn_from_equal_rows_is_told_too(ready):
    twice = [row for row in rows(30) for _ in range(2)]
    account = ready(twice, None, eval_fraction=0.3).ledger.splits["eval"][0]
    assert account.noted["held out and trained"] > 3
    (group,) = account.groups["held out and trained"].largest()
    assert group.text.endswith("`data.process: dedupe` trains and holds out each row once.")
    alone = ready(twice, None, eval_fraction=0.3, process="dedupe").ledger.splits["eval"][0]
    assert alone.kept
    assert not alone.noted


def test_rows_without_an_equal_one_are_not_told(ready):
    same_question = [{"messages": [row["messages"][0], {"role": "assistant", "content": "No."}]} for row in rows(4)]
    assert not ready(rows(4), same_question).ledger.splits["eval"][0].noted
