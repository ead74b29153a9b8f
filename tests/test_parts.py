"""Components whose options hold other components: named, checked, explained and remembered as everywhere else."""

import json
import pickle

import jsonschema
import pytest
import yaml
from conftest import write_rows
from typer.testing import CliRunner

import sftplug
from sftplug import DataError, RecipeError
from sftplug.cli import app
from sftplug.data.store import key_of
from sftplug.model.loading import load_tokenizer
from sftplug.plugin.components import parts_of
from sftplug.recipe import load_recipe
from sftplug.run.record import recorded
from sftplug.run.sources import describe_sources
from sftplug.testing import check_component, check_source

PLUGIN = '''
import sftplug
from sftplug import *

class Twice(DatasetSource):
    """Every row of another source, twice."""
    type: str = "twice"
    base: DatasetSource
    """The rows."""
    def rows(self):
        for row in self.base.rows():
            yield Row(row.data, f"{row.origin}a")
            yield Row(row.data, f"{row.origin}b")
    def label(self):
        return f"twice {self.base.label()}"
    def fingerprint(self):
        return "mine"

class Polite(DatasetFormat):
    """A conversation of another format, with a word of thanks."""
    type: str = "polite"
    base: DatasetFormat = Field("messages", validate_default=True)
    """What the rows look like."""
    more: tuple[DatasetFormat, ...] = ()
    """Others to try."""
    def to_conversation(self, row):
        from dataclasses import replace
        made = self.base.to_conversation(row)
        *before, last = made.messages
        return replace(made, messages=(*before, replace(last, content=last.content + " Thanks!")))
    def check(self, recipe):
        if self.base.type == "text":
            yield "cannot thank in plain text."

@sftplug.hookimpl
def sftplug_dataset_sources():
    return [Twice]

@sftplug.hookimpl
def sftplug_dataset_formats():
    return [Polite]
'''


@pytest.fixture
def written(recipe_file, tmp_path):
    def write(train):
        file = recipe_file()
        write_rows(tmp_path / "qa.jsonl", [{"q": "One?", "a": "Two."}, {"q": "Three?", "a": "Four."}])
        (tmp_path / "mine.py").write_text(PLUGIN)
        recipe = yaml.safe_load(file.read_text())
        recipe |= {"plugins": ["./mine.py"], "data": {"train": train, "max_length": 256}}
        file.write_text(yaml.safe_dump(recipe | {"chat_template": "chatml", "quantization": "fp32"}))
        return file

    return write


COLUMNS = {"columns": {"user": "q", "assistant": "a"}}
SHORT = {"source": "twice", "base": {"path": "qa.jsonl"}, "format": {"polite": {"base": COLUMNS}}}
LONG = {
    "source": {"type": "twice", "base": {"type": "file", "path": "qa.jsonl"}},
    "format": {"type": "polite", "base": {"type": "columns", "user": "q", "assistant": "a"}},
}


@pytest.mark.parametrize(
    "train",
    [
        SHORT,
        LONG,
        {**SHORT, "base": {"file": "qa.jsonl"}},
        {**SHORT, "source": {"twice": {"base": {"path": "qa.jsonl"}}}} | {"base": None},
        {**LONG, "format": {"type": "polite", "base": COLUMNS, "more": ["text", {"alpaca": {}}]}},
    ],
)
def test_rows_of_a_source_in_a_source_are_read_by_a_format_in_a_format(written, prepared, train):
    ready = prepared(written({key: value for key, value in train.items() if value is not None}))
    texts = [ready.tokenizer.decode(row) for row in ready.train["input_ids"]]
    assert len(texts) == 4
    assert "One?" in texts[1]
    assert "Two. Thanks!" in texts[1]
    assert ready.origins.of([1]) == ["qa.jsonl:1b"]


def test_a_default_may_be_a_name(written, tmp_path):
    file = written({"path": "qa.jsonl", "format": "polite"})
    (section,) = load_recipe(str(file)).recipe.data.train
    assert section.format.base.type == "messages"


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            {**SHORT, "base": {"path": "gone.jsonl"}},
            r"data.train.base.path \(recipe.yaml:\d+\): the file .*gone.jsonl does not",
        ),
        (
            {**SHORT, "base": "nothing"},
            r"data.train.base \(recipe.yaml:\d+\): 'nothing' is not installed. .*Known: file, ",
        ),
        (
            {**SHORT, "base": {"type": "file", "pth": "x"}},
            r"base.pth .*: unknown key. Did you mean 'path'\? Known: columns",
        ),
        ({**SHORT, "base": {"type": "file"}}, r"data.train.base.path \(recipe.yaml:\d+\): is required"),
        ({**SHORT, "base": 3}, r"data.train.base .*must be a name or a mapping with a `type`, not 3"),
        ({"source": "twice", "format": "text"}, r"data.train.base .*: is required"),
        ({**SHORT, "format": {"polite": {"base": "text"}}}, r"data.train.format.*: cannot thank in plain text"),
        (
            {**SHORT, "format": {"polite": {"base": {"columns": {"usr": "q"}}}}},
            r"usr.*unknown key. Did you mean 'user'",
        ),
    ],
)
def test_what_is_wrong_within_is_said_where_it_stands(written, train, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(written(train)))


def test_it_is_explained_recorded_and_laid_over_like_everything_else(written):
    loaded = load_recipe(str(written(SHORT)))
    assert set(loaded.active) >= {"mine", "sources", "formats"}
    values = {value.path: value for value in sftplug.explain(loaded).values}
    assert values["data.train[0].source.base.path"].origin.startswith("recipe.yaml:")
    assert values["data.train[0].source.base.path"].plugin.startswith("sources")
    assert values["data.train[0].source.base.columns"].origin == "default of source file"
    assert values["data.train[0].format.base.user"].value == "q"
    kept = recorded(loaded.recipe)["data"]["train"][0]
    base = kept["source"]["base"]
    path = values["data.train[0].source.base.path"].value
    assert {name: value for name, value in base.items() if value is not None} == {"type": "file", "path": path}
    assert base["columns"] is None
    again = load_recipe(str(written({**LONG, "source": kept["source"], "format": kept["format"]})))
    assert recorded(again.recipe)["data"] == recorded(loaded.recipe)["data"]
    changed = load_recipe(str(written(SHORT)), ["data.train.format.base.user=a", "data.train.base.columns=[q]"])
    assert changed.recipe.data.train[0].format.base.user == "a"
    assert changed.recipe.data.train[0].source.base.columns == ("q",)
    assert pickle.loads(pickle.dumps(loaded.recipe.data.train[0].format.base)).user == "q"
    assert [path for path, _ in loaded.recipe.components() if "base" in path] == [
        "data.train[0].base",
        "data.train[0].format.base",
    ]
    assert [path for path, _ in parts_of(loaded.recipe.data.train[0].source)] == [("base",)]


def test_secrets_within_are_left_out_of_the_record(written):
    recipe = load_recipe(str(written({**SHORT, "base": {"path": "https://ada:secret123@a.org/x.jsonl"}}))).recipe
    assert "secret123" not in json.dumps(recorded(recipe))


def test_rows_within_are_part_of_what_prepared_rows_are_known_by(written, tmp_path):
    recipe = load_recipe(str(written(SHORT))).recipe

    def key():
        return key_of(recipe, load_tokenizer(recipe), frozenset(), [])

    before = key()
    assert before == key()
    assert [source["at"] for source in describe_sources(recipe)] == ["data.train[0]", "data.train[0].base"]
    write_rows(tmp_path / "qa.jsonl", [{"q": "Five?", "a": "Six."}])
    assert key() != before


def test_a_plan_leaves_remote_rows_within_unread(written):
    file = written({**SHORT, "base": {"path": "https://example.org/x.jsonl"}})
    said = CliRunner().invoke(app, ["plan", str(file)]).output
    assert "twice https://example.org/x.jsonl" in said.replace("\n", " ")


def test_an_editor_sees_what_may_stand_there(written, tmp_path):
    from sftplug.recipe.schema import recipe_schema

    schema = recipe_schema(load_recipe(str(written(SHORT))).registry)
    good = yaml.safe_load(written(SHORT).read_text())
    jsonschema.validate(good, schema)
    jsonschema.validate(yaml.safe_load(written(LONG).read_text()), schema)
    for wrong in ({"base": {"pth": "qa.jsonl"}}, {"base": {"type": "fil", "path": "qa.jsonl"}}, {"base": 3}):
        bad = yaml.safe_load(written({**SHORT, **wrong}).read_text())
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_objects_may_stand_there_too_and_keep_the_laws(written, prepared, tmp_path):
    file = written(SHORT)
    found = load_recipe(str(file))
    twice, polite = (type(found.recipe.data.train[0].source), type(found.recipe.data.train[0].format))
    base = found.recipe.data.train[0].source.base
    check_component(polite, base={"type": "columns", "user": "q", "assistant": "a"})
    check_source(twice, base=base)
    section = {"source": twice(base=base), "format": polite(base=found.recipe.data.train[0].format.base)}
    recipe = {**yaml.safe_load(file.read_text()), "data": {"train": section}}
    del recipe["plugins"]
    assert sftplug.load(recipe).recipe.data.train[0].source.base == base
    with pytest.raises(
        ValueError, match="must be a DatasetSource, or a mapping with the `type` of one that is imported"
    ):
        twice(base={"type": "nowhere"})


def test_plugins_show_gives_an_example_that_is_valid(written):
    file = written(SHORT)
    from sftplug.recipe.describe import example_of, options_of

    twice = type(load_recipe(str(file)).recipe.data.train[0].source)
    assert [(option.name, option.type) for option in options_of(twice)] == [("base", "source")]
    assert yaml.safe_load(example_of(twice))["data"]["train"] == [
        {"source": "twice", "base": {"path": "rows.jsonl"}, "format": "messages"}
    ]


def test_a_processor_may_read_rows_of_its_own(written, prepared, tmp_path):
    write_rows(tmp_path / "other.jsonl", [{"q": "one", "a": "two"}])
    train = {"path": "qa.jsonl", "format": COLUMNS, "process": {"decontaminate": {"against": {"path": "other.jsonl"}}}}
    ready = prepared(written(train))
    assert ready.ledger.splits["train"][0].reasons["decontaminate"] == [
        "qa.jsonl:1: says the same as the held-out row other.jsonl:1"
    ]
    with pytest.raises(RecipeError, match=r"data.train.process.*against.*: the file .*gone.jsonl does not exist"):
        load_recipe(str(written(train | {"process": {"decontaminate": {"against": {"path": "gone.jsonl"}}}})))
    (tmp_path / "other.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"other.jsonl:1: is not valid JSON"):
        prepared(written(train))
