"""Short forms mean what the long ones mean, and every value says where it was written, however that was done."""

import json
import re

import pytest
import yaml
from conftest import TINY, rows, write_rows

import sftplug
from sftplug import RecipeError
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe
from sftplug.recipe.origins import origin_at, origins
from sftplug.recipe.short_forms import spell_out
from sftplug.recipe.yaml import parse_yaml
from sftplug.run.record import origins as recorded_origins
from sftplug.run.record import recorded

SOURCE = {"path": "rows.jsonl", "format": "messages"}
BASE = {
    "model": {"build": TINY},
    "data": {"train": SOURCE, "max_length": 256},
    "chat_template": "chatml",
    "quantization": "fp32",
    "train": {"max_steps": 4},
}
PATH = {"source": {"type": "file", "path": "rows.jsonl"}, "format": {"type": "messages"}}
FORMS = {
    "a bare name": ({"adapter": "lora"}, {"adapter": {"type": "lora"}}),
    "a name with options": ({"adapter": {"lora": {"r": 8}}}, {"adapter": {"type": "lora", "r": 8}}),
    "a name with a value": ({"masking": {"roles": ["user"]}}, {"masking": [[{"type": "roles", "roles": ["user"]}]]}),
    "a bare model": ({"model": "org/name"}, {"model": {"name_or_path": "org/name"}}),
    "a bare builder": ({"model": {"build": "tiny"}}, {"model": {"build": {"type": "tiny"}}}),
    "a bare strategy": ({"launch": "ddp"}, {"launch": {"strategy": "ddp"}}),
    "a masking": ({"masking": "assistant"}, {"masking": [[{"type": "assistant"}]]}),
    "a union": ({"masking": "assistant + turns"}, {"masking": [[{"type": "assistant"}, {"type": "turns"}]]}),
    "unions in a list": (
        {"masking": ["assistant+turns", {"tool_calls": 0.5}]},
        {"masking": [[{"type": "assistant"}, {"type": "turns"}], [{"type": "tool_calls", "weight": 0.5}]]},
    ),
    "one callback": (
        {"callbacks": {"samples": {"prompts": ["x"]}}},
        {"callbacks": [{"type": "samples", "prompts": ["x"]}]},
    ),
    "one metric": ({"evaluation": {"metrics": "exact_match"}}, {"evaluation": {"metrics": [{"type": "exact_match"}]}}),
    "one plugin": ({"plugins": "console"}, {"plugins": ["console"]}),
    "one source": ({"data": {"train": SOURCE}}, {"data": {"train": [PATH]}}),
    "a named source": ({"data": {"train": {"source": "file", **SOURCE}}}, {"data": {"train": [PATH]}}),
    "the section of a source": (
        {"data": {"train": {"source": {"file": "rows.jsonl"}, "format": {"messages": {}}}}},
        {"data": {"train": [PATH]}},
    ),
    "the masking of a source": (
        {"data": {"train": {**SOURCE, "first": 5, "masking": "turns + assistant"}}},
        {"data": {"train": [{**PATH, "first": 5, "masking": [[{"type": "turns"}, {"type": "assistant"}]]}]}},
    ),
}
"""What may be written in short, and the same spelled out."""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return a function that writes sections over a small recipe, each key on a line of its own."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", rows(2))

    def write(sections, name="recipe.yaml", **more):
        path = tmp_path / name
        path.write_text(yaml.safe_dump({**BASE, **sections, **more}, sort_keys=False))
        return path

    return write


def agree(loaded):
    """Check that what is shown and what is recorded say the same of each place, and return path -> origin of both."""
    shown = {value.path: value.origin for value in origins(loaded)}
    kept = recorded_origins(recorded(loaded.recipe), loaded)
    for path, origin in kept.items():
        alone = re.sub(r"(masking\[\d+\])\[0\]", r"\1", path)  # a union of one is shown without its second index
        place = path if path in shown else alone
        if place in shown:
            assert shown[place] == origin, place
        else:  # an option that holds several values is shown as a whole
            assert any(re.fullmatch(rf"{re.escape(whole)}[\[.].*", place) for whole in shown), place
    return {**shown, **kept}


@pytest.mark.parametrize("form", FORMS)
def test_a_short_form_means_what_it_stands_for(file, form):
    short, long = (load_recipe(str(file(sections))) for sections in FORMS[form])
    assert short.recipe.model_dump() == long.recipe.model_dump()
    assert short.tree.data == long.tree.data
    for loaded in (short, long):
        said = agree(loaded)
        assert {origin for origin in said.values() if not origin.startswith("default")} <= {
            f"recipe.yaml:{line}" for line in range(1, 60)
        }
    # What is not a default in the one is none in the other.
    names = [{path for path, origin in agree(loaded).items() if "default" in origin} for loaded in (short, long)]
    assert names[0] == names[1]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_spelled_out_stays_as_it_is(form, tmp_path):
    offers = build_registry(load_plugins()).classes()
    for sections in FORMS[form]:
        layer = parse_yaml(json.dumps(sections), "recipe.yaml", tmp_path)
        once = spell_out(layer, offers)
        assert spell_out(once, offers) == once


OVER = [
    # what lies below, what is set, and where its values come from
    ({"adapter": "lora"}, ["adapter.r=32"], {"adapter.r": "command line", "adapter.type": "recipe.yaml:16"}),
    ({}, ["masking.x=1"], "masking.x (command line): unknown key."),
    ({"masking": {"turns": 2}}, ["masking.last=3"], {"masking[0].last": "command line"}),
    ({"masking": {"turns": 2}}, ["masking=assistant"], {"masking[0][0].type": "command line"}),
    ({}, ["evaluation.metrics=exact_match"], {"evaluation.metrics[0].type": "command line"}),
    ({}, ["data.train.first=1"], {"data.train[0].first": "command line"}),
    (
        {},
        ["data.eval.path=rows.jsonl"],
        {"data.eval[0].source.path": "command line", "data.eval[0].format.type": "read from the rows"},
    ),
    ({}, ["data.train.format.column=chat"], {"data.train[0].format.column": "command line"}),
    ({}, ["callbacks.0.type=samples"], "callbacks[0].prompts (command line): is required."),
    ({}, ["callbacks=samples"], "callbacks.prompts (command line): is required."),
]


@pytest.mark.parametrize(("sections", "overrides", "expected"), OVER)
def test_overrides_reach_through_short_forms(file, sections, overrides, expected):
    path = str(file(sections))
    if isinstance(expected, str):
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides)
        assert str(caught.value.problems[0]).startswith(expected)
        return
    said = agree(load_recipe(path, overrides))
    assert {place: said[place] for place in expected} == expected


def test_a_bare_name_says_all_of_a_component_and_a_mapping_adds_to_it(file, tmp_path):
    file({"adapter": {"type": "lora", "r": 64}})
    for over, rank in (("lora", 16), ({"lora": {}}, 64), ({"alpha": 8}, 64)):
        (tmp_path / "child.yaml").write_text(json.dumps({"extends": "recipe.yaml", "adapter": over}))
        assert load_recipe(str(tmp_path / "child.yaml")).recipe.adapter.r == rank
    # The name is where the base says it, not where options are added to it.
    loaded = load_recipe(str(tmp_path / "child.yaml"))
    assert agree(loaded)["adapter.type"].startswith("recipe.yaml:")
    assert origin_at(loaded, ("adapter", "alpha")) == "child.yaml:1"


WRONG = {
    "masking: {roles: {roles: [user], weight: -1}}": "masking.weight (x.yaml:1): unknown key. Known: roles.",
    "masking: [assistant + nobody]": "masking[0] (x.yaml:1): 'nobody' is not installed.",
    "masking: {turns: 0}": "masking.last (x.yaml:1): must be greater than 0, not 0.",
    "launch: fsdp3": "launch (x.yaml:1): must be one of ddp, ",
    "model: ./nowhere": "model (x.yaml:1): the folder ",
    "callbacks: {type: samples, prompts: []}": "callbacks.prompts (x.yaml:1): must be a list of at least 1, not [].",
    "plugins: nobody": "plugins (x.yaml:1): no plugin 'nobody' is installed.",
    "data: {train: {path: gone.jsonl}}": "data.train.path (x.yaml:1): the file ",
    "data: {train: {source: nowhere}}": "data.train.source (x.yaml:1): 'nowhere' is not installed.",
    "data: {train: [{path: rows.jsonl, colums: [x]}]}": "data.train[0].colums (x.yaml:1): unknown key.",
    "data: {train: {path: rows.jsonl, hub: a/b}}": "data.train (x.yaml:1): needs exactly one of `path` and `hub`",
    "data: {train: {path: rows.jsonl, first: 1.5}}": "data.train.first (x.yaml:1): must be a whole number, not 1.5.",
    "chat_template: {type: file, file: a}": "chat_template.path (x.yaml:1): is required.",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_problem_stands_where_its_cause_was_written(file, tmp_path, text):
    file({}, name="base.yaml")
    (tmp_path / "x.yaml").write_text(f"{text}\nextends: base.yaml\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / "x.yaml"))
    assert str(caught.value.problems[0]).startswith(WRONG[text])
    assert len([problem for problem in caught.value.problems if problem.path.startswith("data")]) <= 1


def test_a_dict_is_spelled_out_like_a_file(file):
    sections = {"masking": "assistant + turns", "adapter": {"lora": {"r": 8}}, "evaluation": {"metrics": "exact_match"}}
    mine, theirs = sftplug.load({**BASE, **sections}), load_recipe(str(file(sections)))
    assert (mine.tree.data, mine.tree.places) == (theirs.tree.data, theirs.tree.places)
    assert set(agree(mine).values()) >= {"python", "default of adapter lora"}


def test_a_misplaced_default_is_not_called_the_command_line_s(file):
    said = agree(load_recipe(str(file({})), ["data.too_long.type=drop", "adapter=lora", "adapter.r=4"]))
    assert said["adapter.type"] == said["adapter.r"] == "command line"
    assert said["adapter.dropout"] == "default of adapter lora"
