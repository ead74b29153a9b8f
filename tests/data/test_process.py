"""Rows on their way from source to format: processed in order, and every one of them accounted for."""

import json
from itertools import pairwise

import pytest
from conftest import write_rows
from typer.testing import CliRunner

from sftplug import DataError, PluginError, RecipeError, Row
from sftplug.cli import app
from sftplug.data.store import key_of
from sftplug.model.loading import load_tokenizer
from sftplug.recipe import load_recipe
from sftplug.run.record import gained, recorded
from sftplug.types.ledger import Ledger
from sftplug.types.processing import joined_origin

PLUGIN = """
from typing import ClassVar
import sftplug
from sftplug import *

class Halves(RowProcessor):
    type: str = "halves"
    def process(self, row):
        text = row.data["text"]
        if not isinstance(text, str):
            raise RowError("text", "must be text")
        if text == "none":
            return Dropped("says none")
        return [{**row.data, "text": part} for part in text.split("|")]

class Pairs(StreamProcessor):
    type: str = "pairs"
    holds_rows: ClassVar[bool] = True
    def stream(self, rows, context):
        held = list(rows)
        for first, second in zip(held[::2], held[1::2]):
            yield Made({"text": first.data["text"] + second.data["text"]}, of=[first, second])
        if len(held) % 2:
            yield Dropped("is alone", held[-1])

class Paths(StreamProcessor):
    type: str = "paths"
    holds_rows: ClassVar[bool] = True
    def stream(self, rows, context):
        root, *leaves = rows
        for leaf in leaves:
            yield Made({"text": root.data["text"] + leaf.data["text"]}, of=[root, leaf])

class Backwards(StreamProcessor):
    type: str = "backwards"
    holds_rows: ClassVar[bool] = True
    def stream(self, rows, context):
        yield from reversed(list(rows))

class Wrong(StreamProcessor):
    type: str = "wrong"
    how: str
    def stream(self, rows, context):
        row = next(rows)
        if self.how == "forgets":
            list(rows)
        elif self.how == "invents":
            yield Row({"text": "x"}, "nowhere")
        elif self.how == "made of nothing":
            yield Made({"text": "x"}, of=[])
        elif self.how == "twice":
            yield row
            yield Dropped("late", row)
        elif self.how == "after all":
            yield Dropped("early", row)
            yield row
        elif self.how == "which":
            yield Dropped("some")
        elif self.how == "raises":
            raise RowError("text", "is bad")
        elif self.how == "crashes":
            1 / 0

@sftplug.hookimpl
def sftplug_row_processors():
    return [Halves, Pairs, Paths, Backwards, Wrong]
"""


@pytest.fixture
def written(recipe_file, tmp_path):
    """Write a recipe of plain text whose training sources hold the given texts."""

    def write(*sources, data=None, **options):
        (tmp_path / "mine.py").write_text(PLUGIN)
        train = []
        for number, texts in enumerate(sources):
            rows = [text if isinstance(text, dict) else {"text": text} for text in texts]
            write_rows(tmp_path / f"{number}.jsonl", rows)
            train.append({"path": f"{number}.jsonl", "format": "text", **options})
        file = recipe_file(plugins=["mine.py"])
        head = file.read_text().split("data:")[0]
        said = json.dumps({"train": train, "max_length": 256, **(data or {})})
        file.write_text(
            f"{head}plugins: [./mine.py]\ndata: {said}\nmasking: all\nchat_template: chatml\n"
            "quantization: fp32\n".replace(
                "plugins: [./mine.py]\n", "" if "plugins" in head else "plugins: [./mine.py]\n"
            )
        )
        return file

    return write


def texts(ready, split="train"):
    rows = getattr(ready, split)["input_ids"]
    return [ready.tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def steps(account):
    return [(step.processor, step.read, step.out) for step in account.processed]


def train_account(ready):
    return ready.ledger.splits["train"][0]


def test_one_row_becomes_none_or_several_and_each_is_accounted_for(written, prepared):
    ready = prepared(written(["a|b", "none", "c"], process="halves"))
    account = train_account(ready)
    assert texts(ready) == ["a", "b", "c"]
    assert ready.origins.of(range(3)) == ["0.jsonl:1#1", "0.jsonl:1#2", "0.jsonl:3"]
    assert (account.read, account.rows, account.kept, dict(account.dropped)) == (3, 4, 3, {"halves": 1})
    assert account.reasons["halves"] == ["0.jsonl:2: says none"]
    assert account.to_dict()["processed"] == [
        {"processor": "halves", "read": 3, "changed": 1, "made": 1, "joined": 0, "dropped": 1, "out": 3}
    ]
    again = Ledger.from_state(json.loads(json.dumps(ready.ledger.to_state())))
    assert again.splits["train"][0].processed == account.processed


def test_a_stream_joins_rows_and_the_made_ones_say_of_which(written, prepared):
    ready = prepared(written(["a", "b", "c", "d", "e"], process=["pairs", {"halves": {}}]))
    account = train_account(ready)
    assert texts(ready) == ["ab", "cd"]
    assert ready.origins.of(range(2)) == ["0.jsonl:1+2", "0.jsonl:3+4"]
    assert steps(account) == [("pairs", 5, 2), ("halves", 2, 2)]
    assert (account.processed[0].joined, account.rows, dict(account.dropped)) == (2, 3, {"pairs": 1})
    ready = prepared(written(["a", "b", "c", "d"], process="paths"))  # a row in several
    account = train_account(ready)
    assert (texts(ready), account.rows, account.kept) == (["ab", "ac", "ad"], 3, 3)
    assert steps(account) == [("paths", 4, 3)]


def test_the_origin_of_a_row_that_is_made_of_others():
    rows = [Row({}, f"a.jsonl:{number}") for number in range(1, 30)]
    assert joined_origin(rows[:1]) == "a.jsonl:1"
    assert joined_origin([rows[2], rows[0], rows[2]]) == "a.jsonl:3+1"
    assert joined_origin([*rows[:1], Row({}, "b[3]")]) == "a.jsonl:1+b[3]"
    assert joined_origin(rows) == "a.jsonl:1+2+3+4+5+6+7+…+29 (29 rows)"


def test_the_first_20_origins_are_kept_and_all_are_counted(written, prepared):
    account = train_account(prepared(written(["none"] * 50 + ["a"], process="halves")))
    assert (account.dropped["halves"], len(account.reasons["halves"])) == (50, 20)


def test_a_row_that_does_not_fit_is_a_bad_row(written, prepared):
    rows = ["a", {"text": 3}]
    with pytest.raises(DataError, match=r"1 of 2 rows of .* do not fit.*\n  0.jsonl:2: halves: text: must be text"):
        prepared(written(rows, process="halves"))
    account = train_account(prepared(written(rows, process="halves", data={"on_bad_row": "skip"})))
    assert (dict(account.dropped), account.kept) == ({"bad": 1}, 1)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            "forgets",
            r"stream\(\) read 3 rows and said nothing of them \(0.jsonl:1, 0.jsonl:2, 0.jsonl:3\): yield sftpl",
        ),
        (
            "invents",
            r"stream\(\) must yield the rows that it is given, sftplug.Made\(data, of=\[row\]\) or .*, not Row",
        ),
        ("made of nothing", r"stream\(\) must say of which rows a row is made"),
        ("twice", r"stream\(\) drops 0.jsonl:1, of which it said before that it is used"),
        ("after all", r"stream\(\) goes on with 0.jsonl:1, of which it said before that it is dropped"),
        ("which", r"stream\(\) must say which row is dropped, sftplug.Dropped\(reason, row\), not NoneType"),
        ("raises", r"stream\(\) raised RowError, which would end all rows: yield .* \(text: is bad\)"),
        ("crashes", r"after 0.jsonl:1: row processor 'wrong' .* failed: ZeroDivisionError: .*mine.py:\d+"),
    ],
)
def test_what_a_stream_does_wrong_is_said_with_plugin_file_and_row(written, prepared, how, said):
    with pytest.raises(PluginError, match=said) as caught:
        prepared(written(["a", "b", "c"], process={"wrong": {"how": how}}))
    assert "row processor 'wrong' of plugin mine (file" in str(caught.value)


def test_all_training_rows_together_are_processed_source_by_source(written, prepared, tmp_path):
    write_rows(tmp_path / "eval.jsonl", [{"text": "a"}, {"text": "a"}])
    held = {"path": "eval.jsonl", "format": "text"}
    ready = prepared(written(["a", "b"], ["b", "c", "a"], data={"process": "dedupe", "eval": held}))
    assert texts(ready) == ["a", "b", "c"]
    assert ready.eval.num_rows == 2
    first, second = ready.ledger.splits["train"]
    assert (first.read, first.kept, second.read, second.kept) == (2, 2, 3, 1)
    assert second.reasons["dedupe"] == ["1.jsonl:1: is equal to 0.jsonl:2", "1.jsonl:3: is equal to 0.jsonl:1"]
    assert prepared(written(["a", "b"], ["c"], data={"process": {"sample": 2}})).train.num_rows == 2
    with pytest.raises(PluginError, match=r"'backwards' .* yields 0.jsonl:2 after rows of a later source, and"):
        prepared(written(["a", "b"], ["c"], data={"process": "backwards"}))


def test_rows_joined_across_sources_are_accounted_for_where_they_were_read(written, prepared):
    ready = prepared(written(["a"], ["b", "c"], data={"process": "pairs"}))
    first, second = ready.ledger.splits["train"]
    assert texts(ready) == ["ab"]
    assert (first.kept, second.kept, dict(second.dropped)) == (1, 0, {"pairs": 1})
    assert first.balanced()
    assert second.balanced()


def test_a_held_out_fraction_is_drawn_after_processing(written, prepared):
    rows = [f"{number}|x{number}" for number in range(40)] + ["none"]
    ready = prepared(written(rows, process=["halves", "dedupe"], data={"eval_fraction": 0.25}))
    (train,), (held_out,) = ready.ledger.splits["train"], ready.ledger.splits["eval"]
    assert (train.processed[-1].out, train.kept + held_out.kept) == (80, 80)
    assert held_out.processed == []
    assert train.read + held_out.read == 41
    assert 5 < held_out.kept < 40
    assert not {*texts(ready)} & {*texts(ready, "eval")}
    plain = prepared(written(rows, data={"eval_fraction": 0.25}))
    assert sum(account.read for _, account in plain.ledger.accounts()) == 41


def test_ignore_comes_after_and_columns_that_served_need_no_reader(written, prepared):
    rows = [{"text": "a", "score": 1, "id": 7}, {"text": "b", "score": 9, "id": 8}]
    ready = prepared(written(rows, process={"filter": {"column": "score", "at_least": 5}}, ignore=["id"]))
    assert texts(ready) == ["b"]
    again = prepared(written(rows, process={"filter": {"column": "id", "keep": 7}}, ignore=["id", "score"]))
    assert texts(again) == ["a"]
    with pytest.raises(DataError, match="has columns that its format does not read: id"):
        prepared(written(rows, data={"process": {"filter": {"column": "score", "at_least": 5}}}))


def test_nothing_left_names_what_dropped_the_rows(written, prepared):
    with pytest.raises(DataError, match=r"no row of the split 'train' is left: 1 halves. The first: 0.jsonl:1: says"):
        prepared(written(["none"], process="halves"))
    with pytest.raises(DataError, match=r"1 of 2 rows of .* would be dropped \(50.0%\), 10.0% are allowed"):
        prepared(written(["none", "a"], process="halves", data={"max_dropped": 0.1}))


def test_what_processes_rows_is_part_of_what_they_are_known_by(written):
    def key(texts=("a",), **options):
        recipe = load_recipe(str(written(texts, **options))).recipe
        return key_of(recipe, load_tokenizer(recipe), frozenset(), [])

    different = [{}, {"process": "halves"}, {"process": "dedupe"}, {"data": {"process": "dedupe"}}]
    assert len({key(**options) for options in different}) == 4
    assert key(process="dedupe") == key(process=["dedupe"]) == key(process={"type": "dedupe"})


def test_a_recipe_from_before_row_processors_goes_on(written):
    loaded = load_recipe(str(written(["a"])))
    before = recorded(loaded.recipe)
    del before["data"]["process"], before["data"]["train"][0]["process"]
    assert gained(before, loaded) == {"data.process": [], "data.train[0].process": []}


def test_preview_and_the_ledger_show_what_was_done(written, tmp_path):
    file = written(["a|b", "none"], process=["halves", "dedupe"])
    said = CliRunner().invoke(app, ["preview", str(file), "-n", "1"]).output
    assert "processed: halves: 2 rows in, 2 out: 1 dropped, 1 made, 1 changed" in said
    assert "processed: dedupe: 2 rows in, 2 out\n" in said
    result = CliRunner().invoke(app, ["prepare", str(file), "--output", str(tmp_path / "out")])
    assert "dedupe: 2 rows in, 2 out" in result.output.replace("\n", " ")
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    done = ledger["splits"]["train"][0]["processed"]
    assert all(before["out"] == after["read"] for before, after in pairwise(done))


def test_short_forms_and_mistakes_are_those_of_every_kind(written):
    with pytest.raises(RecipeError, match=r"process.*'dedup' is not installed. Did you mean 'dedupe'"):
        load_recipe(str(written(["a"], process="dedup")))
    with pytest.raises(RecipeError, match=r"process.*: unknown key. Did you mean 'near'"):
        load_recipe(str(written(["a"], process=[{"dedupe": {"neer": 1}}])))
    recipe = load_recipe(str(written(["a"], process=[{"dedupe": 0.9}, "halves"]))).recipe
    assert [(part.type, getattr(part, "near", None)) for part in recipe.data.train[0].process] == [
        ("dedupe", 0.9),
        ("halves", None),
    ]
