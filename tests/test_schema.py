"""The schema accepts what the loader accepts and rejects what it rejects, as far as the recipe alone can tell."""

import copy
import json
import re

import pytest
import yaml
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from strangers import GOOD, Site
from typer.testing import CliRunner

from sftplug import RecipeError
from sftplug.cli import app
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe, shipped_recipes
from sftplug.recipe.defaults import assume_quantization
from sftplug.recipe.given import LoadRequest
from sftplug.recipe.load import _train_problems, _validate
from sftplug.recipe.named_plugins import named_in
from sftplug.recipe.own_sections import in_use
from sftplug.recipe.schema import recipe_schema
from sftplug.recipe.short_forms import spell_out
from sftplug.recipe.train_options import is_offered, train_fields
from sftplug.recipe.yaml import Tree, read_yaml

REGISTRY = build_registry(load_plugins())
SCHEMA = recipe_schema(REGISTRY)
VALIDATOR = Draft202012Validator(SCHEMA)
RECIPES = shipped_recipes()

BASE = {
    "model": {"build": TINY},
    "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "max_length": 256},
    "chat_template": "chatml",
    "quantization": "fp32",
    "train": {"max_steps": 4, "learning_rate": 5e-3},
}


def source(**options):
    return {"data": {"train": {"path": "rows.jsonl", "format": "messages", **options}}}


def data(**options):
    return {"data": {**BASE["data"], **options}}


RIGHT = {
    "names alone": {"adapter": "lora", "masking": "assistant", "callbacks": []},
    "a name with options": {"adapter": {"lora": {"r": 8}}, "masking": {"roles": ["user"]}},
    "a type with options": {"adapter": {"type": "lora", "r": 8, "alpha": 16}},
    "an option by its shorthand": {"masking": ["assistant + completion", {"tool_calls": 0.5}, ["assistant", "turns"]]},
    "a model's name": {"model": "org/name"},
    "a list of sources": {"data": {"train": [{"path": "rows.jsonl", "format": "messages", "share": 1}]}},
    "a source by its name": source(source="file", first=3),
    "a source as a section": {"data": {"train": {"source": {"file": "rows.jsonl"}, "format": {"type": "messages"}}}},
    "a source on the Hub": {"data": {"train": {"hub": "org/name", "split": "train", "format": "messages"}}},
    "a masking of one source": source(masking="assistant + turns"),
    "shares in per cent": data(max_loss="1.5%", max_dropped=0.1),
    "no quantization": {"quantization": None},
    "a plugin": {"plugins": "console"},
    "plugins": {"plugins": ["console", "masking"]},
    "a whole number for a float": {"train": {"learning_rate": 1, "num_train_epochs": 3}},
}

WRONG = {
    "an unknown section": ({"adaptr": "lora"}, "unknown key. Did you mean 'adapter'?"),
    "no model": ({"model": None}, "is required."),
    "no data": ({"data": None}, "is required."),
    "a section that is a list": ({"model": ["a"]}, "must be a mapping"),
    "a model that is a number": ({"model": 7}, "must be a mapping"),
    "an unknown key of the model": ({"model": {"build": TINY, "revison": "x"}}, "Did you mean 'revision'?"),
    "a revision that is a number": ({"model": {"build": TINY, "revision": 7}}, "must be text"),
    "a boolean in words": ({"model": {"build": TINY, "trust_remote_code": "yes"}}, "must be true or false"),
    "a boolean as a number": ({"model": {"build": TINY, "trust_remote_code": 1}}, "must be true or false"),
    "an unknown builder": ({"model": {"build": "tinny"}}, "Did you mean 'tiny'?"),
    "an option out of range": ({"model": {"build": {"type": "tiny", "layers": 0}}}, "greater than"),
    "no training rows": ({"data": {"eval": []}}, "is required."),
    "an empty list of sources": ({"data": {"train": []}}, "at least 1"),
    "a source that is a string": ({"data": {"train": "rows.jsonl"}}, "must be a mapping"),
    "a source of nowhere": ({"data": {"train": {"format": "messages"}}}, "needs exactly one of `path` and `hub`"),
    "a source of two places": (source(hub="org/name"), "needs exactly one of `path` and `hub`"),
    "an unknown format": (source(format="mesages"), "Did you mean 'messages'?"),
    "an unknown option of a format": (source(format={"type": "messages", "colum": "x"}), "Did you mean 'column'?"),
    "an unknown option of a source": (source(colums=["x"]), "Did you mean 'columns'?"),
    "an option of another source": (source(revision="main"), "unknown key."),
    "a format that needs options": (source(format="columns"), "is required."),
    "a format without its type": (source(format={"column": "x", "tools": "y"}), "has no `type`"),
    "a share of nothing": (source(share=0), "greater than 0"),
    "rows by halves": (source(first=1.5), "must be a whole number"),
    "rows in words": (source(first="10"), "must be a whole number"),
    "columns that are not list": (source(columns="x"), "must be a list"),
    "arguments that are a list": (source(template_kwargs=["x"]), "must be a mapping"),
    "a length in words": (data(max_length="ten"), "must be a whole number"),
    "a length of one": (data(max_length=1), "greater than 1"),
    "a length that is true": (data(max_length=True), "must be a whole number"),
    "a fraction of all": (data(eval_fraction=1.0), "less than 1"),
    "more than all": (data(max_loss=1.5), "must be at most 1"),
    "a share in words": (data(max_loss="some"), "must be a number"),
    "an unknown choice": (data(packing="row"), "Did you mean 'rows'?"),
    "an unknown key of the mix": (data(mix={"of": "rows"}), "unknown key."),
    "an unknown choice of the mix": (data(mix={"by": "row"}), "Did you mean 'rows'?"),
    "an unknown policy": (data(too_long="dropp"), "Did you mean 'drop'?"),
    "an unknown template": ({"chat_template": "chatlm"}, "Did you mean 'chatml'?"),
    "a template that needs a file": ({"chat_template": "file"}, "is required."),
    "no template at all": ({"chat_template": None}, "is empty. Leave the key out"),
    "an unknown masking": ({"masking": "asistant"}, "Did you mean 'assistant'?"),
    "an unknown masking in a union": ({"masking": "assistant + role"}, "'role' is not installed."),
    "a plus in a list of names": ({"masking": [["assistant + turns"]]}, "is not installed."),
    "a masking that is a number": ({"masking": [7]}, "must be a list, not 7"),
    "a weight below zero": ({"masking": ["assistant", {"tool_calls": -1}]}, "must be at least 0"),
    "a weight in words": ({"masking": ["assistant", {"tool_calls": "much"}]}, "must be a number"),
    "a name with a value, and no option for it": ({"masking": [{"assistant": 1}]}, "`assistant` takes no bare value"),
    "an unknown policy of spans": ({"spans": {"boundary": "cut"}}, "must be one of split, error"),
    "an unknown quantization": ({"quantization": "nf5"}, "Did you mean 'nf4'?"),
    "a quantization in a list": ({"quantization": ["nf4"]}, "must be a name or a mapping"),
    "an option of another component": ({"quantization": {"type": "fp32", "double_quant": True}}, "unknown key."),
    "an unknown adapter": ({"adapter": {"type": "lorra", "r": 3}}, "Did you mean 'lora'?"),
    "two names in one": ({"adapter": {"lora": {}, "full": {}}}, "has no `type`"),
    "a rank in words": ({"adapter": {"type": "lora", "r": "16"}}, "must be a whole number"),
    "a rank below one": ({"adapter": {"lora": {"r": 0}}}, "greater than 0"),
    "a callback that needs options": ({"callbacks": "samples"}, "is required."),
    "a callback without prompts": ({"callbacks": [{"type": "samples", "prompts": []}]}, "at least 1"),
    "plugins that are numbers": ({"plugins": [1]}, "must be text"),
    "plugins in a mapping": ({"plugins": {"console": True}}, "must be text"),
    "an unknown option of the trainer": ({"train": {"learning_rat": 1e-4}}, "Did you mean 'learning_rate'?"),
    "an option that sftplug sets": ({"train": {"max_length": 512}}, "is set by sftplug"),
    "an unknown schedule": ({"train": {"lr_scheduler_type": "cosin"}}, "must be one of linear, cosine"),
    "epochs in words": ({"train": {"num_train_epochs": "three"}}, "must be float"),
    "steps that are true": ({"train": {"max_steps": True}}, "must be int"),
    "a trainer that is a list": ({"train": ["bf16"]}, "must be a mapping"),
    "an output that is a number": ({"output": 7}, "must be text"),
    "an extended recipe that is a list": ({"extends": ["a"]}, "must be a path or the name of a recipe"),
}


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a recipe over the base; None leaves a section out."""

    def write(over):
        (tmp_path / "rows.jsonl").write_text("{}\n")
        left_out = [name for name, value in over.items() if value is None and name in ("model", "data")]
        recipe = {name: value for name, value in {**BASE, **over}.items() if name not in left_out}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return path

    return write


def objections(path):
    return list(VALIDATOR.iter_errors(read_yaml(path).data))


def test_it_is_a_schema_and_describes_every_option():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "masking (sftplug 0.1.0)" in SCHEMA["$comment"]
    lora = SCHEMA["$defs"]["adapter.lora"]
    assert lora["description"].startswith("Train low-rank updates")
    assert lora["properties"]["r"]["description"].startswith("Rank of the update matrices. ")
    assert lora["properties"]["r"]["default"] == 16
    section = SCHEMA["$defs"]["DataSection"]["properties"]
    assert section["packing"]["description"].startswith("``rows`` packs documents into rows of `max_length`")
    trainer = SCHEMA["$defs"]["Recipe"]["properties"]["train"]["properties"]
    assert set(trainer) == {name for name in train_fields() if is_offered(name)}
    assert trainer["learning_rate"]["description"].startswith("The initial learning rate")
    described = [name for name in trainer if trainer[name].get("description")]
    assert len(described) > 0.9 * len(trainer)


@pytest.mark.parametrize("name", RECIPES)
def test_it_accepts_every_shipped_recipe(name):
    assert objections(RECIPES[name]) == []


@pytest.mark.parametrize("case", RIGHT)
def test_it_accepts_every_way_to_write_what_the_loader_accepts(file, case):
    path = file(RIGHT[case])
    load_recipe(str(path))
    assert objections(path) == []


@pytest.mark.parametrize("case", WRONG)
def test_it_rejects_what_the_loader_rejects(file, case):
    over, reason = WRONG[case]
    path = file(over)
    with pytest.raises(RecipeError, match=re.escape(reason)):
        load_recipe(str(path))
    assert objections(path)


def test_a_recipe_that_extends_another_may_leave_out_what_the_other_says(tmp_path):
    path = tmp_path / "child.yaml"
    path.write_text("extends: quickstart\nadapter: {type: lora}\ndata: {max_length: 128}\ntrain: {seed: 1}\n")
    load_recipe(str(path))
    assert objections(path) == []
    for wrong in (
        "adapter: {type: lora, rr: 1}",
        "data: {max_lenght: 1}",
        "data: {train: [{path: x, formt: messages}]}",
        "adaptr: full",
    ):
        path.write_text(f"extends: quickstart\n{wrong}\n")
        with pytest.raises(RecipeError):
            load_recipe(str(path))
        assert objections(path), wrong


# --- any change of a shipped recipe -----------------------------------------------------------------------------------

WHOLE = {name: json.loads(json.dumps(read_yaml(file).data)) for name, file in RECIPES.items()}
WHOLE = {name: recipe for name, recipe in WHOLE.items() if "extends" not in recipe}
VALUES = ["word", 7, 1.5, True, None, [], {}, ["a"], {"a": 1}, -1, 0, "5%", "lora", "assistant + turns"]


def places(value, above=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


@st.composite
def changed_recipes(draw):
    recipe = copy.deepcopy(WHOLE[draw(st.sampled_from(sorted(WHOLE)))])
    *above, key = draw(st.sampled_from(list(places(recipe))))
    around = recipe
    for part in above:
        around = around[part]
    change = draw(st.sampled_from(["rename", "remove", "replace"]))
    if change == "replace" or isinstance(key, int):
        around[key] = draw(st.sampled_from(VALUES))
    else:
        value = around.pop(key)
        if change == "rename":
            around[draw(st.sampled_from([f"{key}s", key[:-1], key.upper(), "type", "r"]))] = value
    return recipe


def problems_of_structure(recipe):
    """Return what the loader finds in the recipe alone: it looks for no file, and asks for no combination."""
    tree, problems = spell_out(Tree(copy.deepcopy(recipe)), REGISTRY.classes()), []
    assume_quantization(tree, REGISTRY)
    problems += _train_problems(tree)
    used = in_use(tree, REGISTRY, named_in(tree))
    _validate(tree, REGISTRY, problems, used, LoadRequest(recipe))
    return problems


@settings(max_examples=150)
@given(changed_recipes())
def test_loader_and_schema_agree_on_any_change_of_a_shipped_recipe(recipe):
    problems, errors = problems_of_structure(recipe), list(VALIDATOR.iter_errors(recipe))
    assert bool(problems) == bool(errors), f"{recipe}\nloader: {[*map(str, problems)]}\nschema: {errors}"


def test_most_changes_are_seen():
    """The test above would say nothing if no change mattered."""
    seen = {bool(problems_of_structure({**WHOLE["quickstart"], "adapter": value})) for value in VALUES}
    assert seen == {True, False}
    assert len(WHOLE) >= 5


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_it_or_writes_it(tmp_path):
    printed = CliRunner().invoke(app, ["schema"])
    assert json.loads(printed.output) == SCHEMA
    written = CliRunner().invoke(app, ["schema", "--output", str(tmp_path / "recipe.schema.json")])
    assert written.output == "# yaml-language-server: $schema=recipe.schema.json\n"
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == SCHEMA


def test_it_is_of_exactly_what_is_installed(tmp_path):
    site = Site(tmp_path / "site")
    site.install(GOOD)
    site.install("import nowhere_at_all", name="broken")
    with_mine = site.sftplug("schema")
    assert "masking.mine" in json.loads(with_mine.stdout)["$defs"]
    assert with_mine.stderr.startswith("warning: plugin 'broken' (broken 1.2.3) failed to load")
    without = site.sftplug("schema", "--no-plugin", "acme", "--no-plugin", "broken")
    assert json.loads(without.stdout)["$defs"].keys() == SCHEMA["$defs"].keys()
