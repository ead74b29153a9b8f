"""Recipes laid over each other, and the command line over them: one rule, whatever way a value is written."""

import json

import pytest
import yaml

from sftplug import RecipeError
from sftplug.recipe import load_recipe

LORA = {"type": "lora", "r": 64, "dropout": 0.1}


@pytest.fixture
def child(recipe_file, tmp_path):
    """Return a function that lays text over a recipe file and loads the result."""

    def go(text, *overrides, sources=None, **base):
        file = recipe_file("base", **base)
        if sources is not None:
            recipe = yaml.safe_load(file.read_text())
            file.write_text(json.dumps({**recipe, "data": {"train": sources}}, indent=1))
        (tmp_path / "child.yaml").write_text(f"extends: base.yaml\n{text}")
        return load_recipe(str(tmp_path / "child.yaml"), overrides)

    return go


@pytest.mark.parametrize("base", [LORA, {"lora": {"r": 64, "dropout": 0.1}}])
@pytest.mark.parametrize("over", ["{r: 8}", "{type: lora, r: 8}", "{lora: {r: 8}}"])
def test_options_of_one_component_merge_however_they_are_written(child, base, over):
    adapter = child(f"adapter: {over}\n", adapter=base).recipe.adapter
    assert (adapter.type, adapter.r, adapter.dropout) == ("lora", 8, 0.1)


@pytest.mark.parametrize("over", ["{qlora: {r: 8}}", "{type: qlora, r: 8}"])
def test_a_component_of_another_type_replaces_the_old_one_whole(child, over):
    adapter = child(f"adapter: {over}\n", adapter=LORA, quantization="nf4").recipe.adapter
    assert (adapter.type, adapter.r, adapter.dropout) == ("qlora", 8, 0.0)
    template = child("chat_template: {file: child.yaml}\n", chat_template={"type": "chatml"}).recipe.chat_template
    assert template.type == "file"


def test_options_reach_under_a_bare_name_and_under_a_default(child):
    assert child("adapter: {r: 8}\n", adapter="lora").recipe.adapter.r == 8
    assert child("", "adapter.r=8", adapter="lora").recipe.adapter.r == 8
    loaded = child("", "masking={turns: 2}")
    assert loaded.recipe.masking[0][0].last == 2
    assert loaded.tree.origins[("masking",)] == "command line"


def test_a_bare_model_name_takes_more_options_and_another_model_replaces_what_is_built(child):
    model = child("model: {revision: abc}\n", model="org/name").recipe.model
    assert (model.name_or_path, model.revision) == ("org/name", "abc")
    assert child("", "model.revision=abc", model="org/name").recipe.model.revision == "abc"
    model = child("model: {name_or_path: org/name}\n").recipe.model
    assert (model.name_or_path, model.build) == ("org/name", None)


def test_another_source_replaces_the_old_one_and_its_options_but_not_the_format(child):
    hub = {"hub": "org/rows", "config": "small", "split": "train_sft", "format": "messages", "first": 5}
    source = child("data: {train: {path: child.yaml}}\n", sources=hub).recipe.data.train[0]
    assert (source.source.type, source.format.type, source.first) == ("file", "messages", 5)
    source = child("data: {train: {hub: org/other}}\n", sources=hub).recipe.data.train[0].source
    assert (source.hub, source.config, source.split) == ("org/other", None, "train")
    source = child("", "data.train.hub=org/other", sources=hub).recipe.data.train[0].source
    assert (source.hub, source.config, source.split) == ("org/other", "small", "train_sft")


def test_overrides_reach_into_lists(child):
    rows = {"path": "rows.jsonl", "format": "messages"}
    masking = ["assistant", {"tool_calls": 0.5}]
    for key in ("data.train.1.first=3", "data.train[1].first=3"):
        loaded = child("", key, "masking.1.weight=2", sources=[rows, rows], masking=masking)
        assert [source.first for source in loaded.recipe.data.train] == [None, 3]
        assert loaded.recipe.masking[1][0].weight == 2
        assert loaded.tree.origins[("data", "train", 1, "first")] == "command line"
        assert loaded.tree.origins[("data", "train", 1, "source", "path")].startswith("base.yaml:")
    assert child("", "data.train.0.first=3").recipe.data.train[0].first == 3  # a single source, without its list
    assert child("", "data.train.first=3", sources=[rows]).recipe.data.train[0].first == 3  # the only one
    for key in ("data.train.first=3", "data.train.2.first=3"):
        with pytest.raises(RecipeError) as caught:
            child("", key, sources=[rows, rows])
        assert "`data.train` is a list: say which is meant. There are `data.train[0]`, `data.train[1]`." in str(
            caught.value
        )
    with pytest.raises(RecipeError, match=r"masking\.weight .*There are `masking\[0\]\[0\]`, `masking\[0\]\[1\]`"):
        child("", "masking.weight=2", masking="assistant + turns")
    assert child("", "masking[0][1].last=2", masking="assistant + turns").recipe.masking[0][1].last == 2


def test_a_new_key_on_the_way_to_a_value_was_written_on_the_command_line(child):
    loaded = child("", "spans.missing_stop=warn", "data.mix.by=tokens")
    assert loaded.tree.origins[("spans",)] == loaded.tree.origins[("data", "mix")] == "command line"
    assert loaded.tree.origins[("data",)].startswith("base.yaml:")
