"""Tags tell rows apart by their columns, and what is known of a source goes with it: to card, record and policies."""

import json
import re

import numpy as np
import pytest
import yaml
from conftest import rows, write_rows

import sftplug
from sftplug import DataError, Loss, Metric, RecipeError, RunError
from sftplug.types.tokens import MOST_SOURCES

ONCE = ("train.max_steps=1", "train.per_device_train_batch_size=24", "train.learning_rate=0")


def tagged(count=24, **values):
    """Return rows with columns; a value may be a function of the row's number."""
    made = rows(count)
    for index, row in enumerate(made):
        row.update({name: value(index) if callable(value) else value for name, value in values.items()})
    return made


@pytest.fixture
def mixed(recipe_file, tmp_path):
    """Two files: the one is north's, the other north's and south's; the second has no language."""
    write_rows(
        tmp_path / "north.jsonl", tagged(12, customer="north", language=lambda index: ["en", 7, None][index % 3])
    )
    write_rows(tmp_path / "both.jsonl", tagged(12, customer=lambda index: "south" if index % 4 else "north"))

    def write(by=("customer", "language", "source"), **sections):
        train = [
            {"path": "north.jsonl", "format": "messages", "tags": ["customer", "language"]},
            {"path": "both.jsonl", "format": "messages", "tags": "customer"},
        ]
        return recipe_of(recipe_file, train, [{"loss_by": {"by": list(by), "shares": True}}], sections)

    return write


def recipe_of(recipe_file, train, callbacks, sections):
    """Write a recipe of these sources; ``more`` of `sections` goes into ``data``."""
    file = recipe_file(callbacks=callbacks, **sections)
    known = yaml.safe_load(file.read_text())
    known["data"] = {"train": train, "max_length": 256, **sections.get("more", {})}
    known.pop("more", None)
    file.write_text(yaml.safe_dump(known, sort_keys=False))
    return file


def logged(run):
    return {name: value for entry in run.directory.metrics() for name, value in entry.items()}


@pytest.mark.parametrize("packing", ["none", "rows"])
def test_the_loss_of_a_tag_is_that_of_its_rows_however_they_are_batched(mixed, run, packing):
    found = logged(run(mixed(), *ONCE, f"data.packing={packing}", "data.max_length=256"))
    assert {name for name in found if name.startswith("loss/")} == {
        *("loss/north.jsonl", "loss/both.jsonl", "loss/customer/north", "loss/customer/south"),
        *("loss/language/en", "loss/language/7", "loss/language/(none)"),
    }
    for tag, values in {"customer": ("north", "south"), "language": ("en", "7", "(none)")}.items():
        assert sum(found[f"share/{tag}/{value}"] for value in values) == pytest.approx(1)
        whole = sum(found[f"share/{tag}/{value}"] * found[f"loss/{tag}/{value}"] for value in values)
        assert whole == pytest.approx(found["loss"], abs=1e-5)


def test_a_tag_is_what_a_file_of_its_own_would_be(recipe_file, run, tmp_path):
    write_rows(tmp_path / "a.jsonl", tagged(10, customer="a"))
    write_rows(tmp_path / "b.jsonl", tagged(14, customer="b"))
    train = [{"path": f"{name}.jsonl", "format": "messages", "tags": ["customer"]} for name in "ab"]
    by = {"loss_by": {"by": ["source", "customer"]}}
    file = recipe_of(recipe_file, train, [by], {"more": {"eval_fraction": 0.25}})
    found = logged(run(file, *ONCE, "train.per_device_eval_batch_size=3"))
    for name in "ab":
        assert found[f"loss/customer/{name}"] == pytest.approx(found[f"loss/{name}.jsonl"])
        assert found[f"eval_loss/customer/{name}"] == pytest.approx(found[f"eval_loss/{name}.jsonl"])


class Length(Metric):
    """It counts characters, and remembers whose replies it saw."""

    type: str = "length"

    def scores(self, replies):
        assert all(reply.tags["customer"] in ("a", "b") for reply in replies)
        return [float(reply.tags["customer"] == "a") for reply in replies]


def test_metrics_of_replies_and_reports_are_split_by_tags(recipe_file, run, command, tmp_path):
    write_rows(tmp_path / "a.jsonl", tagged(24, customer=lambda index: "ab"[index % 2]))
    train = [{"path": "a.jsonl", "format": "messages", "tags": ["customer"]}]
    sections = {"more": {"eval_fraction": 0.5}, "evaluation": {"metrics": "contains", "max_new_tokens": 2}}
    trained = run(recipe_of(recipe_file, train, [{"loss_by": {"by": ["customer"]}}], sections))
    found = logged(trained)
    assert (
        found["eval_contains_rows/customer/a"] + found["eval_contains_rows/customer/b"] == found["eval_contains_rows"]
    )
    measured = trained.evaluate(metrics=["contains"])
    assert set(measured["by"]["customer"]) == {"a", "b"}
    assert measured["by"]["customer"]["a"]["tokens"] + measured["by"]["customer"]["b"]["tokens"] == measured["tokens"]
    assert set(measured["metrics"]["contains"]["by_tag"]["customer"]) == {"a", "b"}
    told = command("report", trained.output).output
    assert re.search(r"customer/a +0\.\d{4}|customer/a +\d\.\d{4}", told), told
    assert "By source, role, part and tag" in trained.report()
    # A metric of one's own gets the tags of each reply.
    from sftplug.ship.replies import scored

    replies = [sftplug.Reply("x", "y", "z", "a.jsonl:1", "a.jsonl", {"customer": name}) for name in "aab"]
    split = scored([Length()], replies)["length"]["by_tag"]["customer"]
    assert split == {"a": {"mean": 1.0, "rows": 2}, "b": {"mean": 0.0, "rows": 1}}


class Sourced(Loss):
    """It costs what the index of the source says."""

    type: str = "sourced"
    reads_provenance = True

    def token_losses(self, tokens):
        return tokens.nll() * 0 + (tokens.provenance >> 6).float()


def test_a_loss_sees_sources_where_rows_have_tags(mixed, monkeypatch, tmp_path):
    written = yaml.safe_load(mixed(by=["source"]).read_text())
    monkeypatch.chdir(tmp_path)
    recipe = sftplug.load({**written, "loss": Sourced()}, *ONCE)
    found = logged(sftplug.train(recipe, show=False))
    assert (found["loss/north.jsonl"], found["loss/both.jsonl"]) == (0.0, 1.0)


def test_what_becomes_of_a_long_row_keeps_its_tags(recipe_file, prepared, tmp_path):
    turns = [{"role": role, "content": "word " * 20} for role in ("user", "assistant") * 6]
    write_rows(tmp_path / "long.jsonl", [{"messages": turns, "customer": name} for name in "ab"])
    train = [{"path": "long.jsonl", "format": "messages", "tags": ["customer"]}]
    more = {"max_length": 200, "too_long": "split_at_turns", "max_loss": 1.0}
    made = prepared(recipe_of(recipe_file, train, [{"loss_by": {"by": ["customer"]}}], {"more": more}))
    groups = [group.tags["customer"] for group in made.groups["train"]]
    assert groups == ["a", "b"]
    seen = [groups[np.array(row["provenance"])[0] >> 6] for row in made.train]
    assert seen == sorted(seen)
    assert set(seen) == {"a", "b"}
    assert len(seen) > 2


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("custmer", "custmer: is missing. Did you mean 'customer'?"),
        ("messages", "messages: must be text or a number to be a tag, not list"),
    ],
)
def test_a_column_that_is_no_tag_is_a_bad_row(recipe_file, tmp_path, column, said):
    write_rows(tmp_path / "a.jsonl", tagged(2, customer="a"))
    train = [{"path": "a.jsonl", "format": "messages", "tags": [column]}]
    with pytest.raises(DataError, match=re.escape(said)):
        sftplug.prepare(recipe_of(recipe_file, train, [], {}))


@pytest.mark.parametrize("option", ["tags", "row_weight"])
def test_a_tag_that_no_row_has_is_no_reason_to_skip_rows(recipe_file, tmp_path, option):
    write_rows(tmp_path / "a.jsonl", tagged(3, customer="a"))
    known = {"path": "a.jsonl", "format": "messages", "ignore": ["customer"]}
    masking = {"masking": ["assistant", "message_weights"]} if option == "row_weight" else {}
    source = {**known, option: ["custmer"] if option == "tags" else "custmer"}
    with pytest.raises(DataError) as caught:
        sftplug.prepare(recipe_of(recipe_file, [source], [], masking))
    remedy = f"No row has the column 'custmer'. Correct the name in `{option}` of this source, or take it out there."
    assert str(caught.value).endswith(remedy)
    assert "on_bad_row" not in str(caught.value)
    assert len(sftplug.prepare(recipe_of(recipe_file, [known], [], masking)).train) == 3
    if option == "tags":
        made = sftplug.prepare(recipe_of(recipe_file, [{**known, "tags": ["customer"], "ignore": []}], [], {}))
        assert len(made.train) == 3


def test_a_tag_that_some_rows_have_is_missing_in_the_others(recipe_file, tmp_path):
    write_rows(tmp_path / "a.jsonl", [*tagged(2, customer="a"), *rows(1)])
    train = [{"path": "a.jsonl", "format": "messages", "tags": ["customer"]}]
    with pytest.raises(DataError, match=r"Fix them, or set `data\.on_bad_row: skip`"):
        sftplug.prepare(recipe_of(recipe_file, train, [], {}))


def test_a_report_lists_the_values_of_a_tag_by_name():
    from sftplug.reporting.facts import split_rows

    class Logged:
        metrics = (
            {"loss/b.jsonl": 1.0, "loss/version/v10": 1.0, "loss/version/(none)": 1.0},
            {"loss/a.jsonl": 1.0, "loss/customer/z": 1.0, "loss/version/v9": 1.0},
        )

    names = [line[0] for line in split_rows(Logged)[1]]
    assert names == ["b.jsonl", "a.jsonl", "customer/z", "version/v9", "version/v10", "version/(none)"]


def test_more_values_than_can_be_told_apart_are_refused(recipe_file, tmp_path):
    write_rows(tmp_path / "a.jsonl", tagged(MOST_SOURCES + 1, id=lambda index: index))
    train = [{"path": "a.jsonl", "format": "messages", "tags": ["id"]}]
    with pytest.raises(DataError, match="Leave some of these out of `tags`: id"):
        sftplug.prepare(recipe_of(recipe_file, train, [], {}))
    without = recipe_of(recipe_file, [{**train[0], "tags": [], "ignore": ["id"]}], [], {})
    assert len(sftplug.prepare(without).train) == MOST_SOURCES + 1


def test_names_that_mean_something_else_or_nothing_are_refused(mixed):
    said = sftplug.check(mixed(by=["custmer", "role"]))
    assert len(said) == 1
    assert "`by: custmer` is no tag. Did you mean 'customer'? Known: role, part, source, customer, language" in said[0]
    with pytest.raises(RecipeError, match="`role` is what rows are split by already"):
        sftplug.load(mixed(), "data.train.0.tags=[role]")
    assert sftplug.load(mixed(by=["customer"]), "data.train.0.tags=[]").recipe.data.train[0].tags == ()


# --- what is known of a source ----------------------------------------------------------------------------------------


def test_what_is_known_of_a_source_is_in_card_record_and_policies_and_changes_nothing(recipe_file, run, tmp_path):
    meta = {"licence": "cc-by-4.0", "owner": "Ada"}
    train = [{"path": "rows.jsonl", "format": "messages", "meta": meta}]
    limits = {"limits": {"licences": ["cc-by-4.0", "own"]}}
    file = recipe_of(recipe_file, train, [], {"policies": limits})
    trained = run(file, "train.save_strategy=steps", "train.save_steps=2", "train.max_steps=2")
    assert json.loads((trained.output / "run.json").read_text())["meta"] == {"data.train[0]": meta}
    card = (trained.output / "README.md").read_text()
    assert re.search(r"\| rows.jsonl \| licence \| cc-by-4.0 \|", card)
    assert re.search(r"\| rows.jsonl \| owner \| Ada \|", card)
    said = sftplug.check(sftplug.load(file, "data.train.0.meta.licence=nc", f"output={tmp_path / 'new'}"))
    assert len(said) == 1
    assert (
        "policy 'limits': the licence of `data.train[0]`, nc, is not one of those allowed: cc-by-4.0, own." in said[0]
    )
    train[0].pop("meta")
    limits["limits"]["commands"] = ["prepare"]
    file = recipe_of(recipe_file, train, [], {"policies": limits})
    with pytest.raises(RecipeError, match=r"does not say its licence: add `meta: \{licence: …\}` to it"):
        sftplug.prepare(file)
    train[0]["meta"] = {"licence": "own"}
    assert len(sftplug.prepare(recipe_of(recipe_file, train, [], {"policies": limits})).train) == 24


def test_a_run_goes_on_when_more_is_known_of_its_source(recipe_file, run, tmp_path):
    train = [{"path": "rows.jsonl", "format": "messages"}]
    file = recipe_of(recipe_file, train, [], {})
    output = run(file, "train.save_strategy=steps", "train.save_steps=2").output
    state = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**state, "state": "interrupted"}))
    again = ("train.save_strategy=steps", "train.save_steps=2", "data.train.0.meta.owner=Ada")
    assert run(file, *again, overwrite=False, resume=True).loss > 0
    with pytest.raises(RunError, match="finished run"):
        run(file, *again, overwrite=False)
