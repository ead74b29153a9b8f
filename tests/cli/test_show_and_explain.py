"""`plugins show` and `explain`: what can be chosen, what was chosen, and who says so."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from strangers import GOOD, Site
from typer.testing import CliRunner

from sftplug import PluginError, RecipeError
from sftplug.cli import app
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe, shipped_recipes
from sftplug.recipe.describe import example_of, options_of
from sftplug.recipe.origins import origins, origins_at
from sftplug.run.record import origins as recorded_origins
from sftplug.run.record import recorded

runner = CliRunner()
UNITS = "cpu multiplies bfloat16 2 times as fast as float32"
OFFERS = [
    (kind, name, offer.component)
    for kind, offers in build_registry(load_plugins()).offers.items()
    for name, offer in offers.items()
]


def said(*arguments):
    result = runner.invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.exception
    return result.output


# --- plugins show -----------------------------------------------------------------------------------------------------


def test_a_component_is_shown_with_options_example_and_origin():
    text = said("plugins", "show", "lora")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "adapter lora" in lines
    assert any(line.startswith("r whole number, > 0 16 Rank of the update matrices") for line in lines)
    assert any(line.startswith("plugin adapters (sftplug 0.1.0), sha256 ") for line in lines)
    assert any(re.fullmatch(r"source .*/sftplug_adapters/\w+\.py:\d+", line) for line in lines)
    assert text.endswith("quantization: bf16\nadapter:\n  type: lora\n  r: 16\n  alpha: 32\n  dropout: 0.0\n")


def test_a_plugin_is_shown_with_all_that_it_offers():
    text = said("plugins", "show", "length")
    assert "plugin length\n" in text
    assert "  distribution  sftplug 0.1.0\n" in text
    assert "  hooks         sftplug_length_policies\n" in text
    assert re.search(r"  sha256        [0-9a-f]{64}\n", text)
    for name in ("drop", "error", "truncate", "drop_oldest_turns", "split_at_turns"):
        assert f"length policy {name}\n" in text
    assert "no options" in text
    assert "hooks         sftplug_commands, sftplug_dataset_prepared, sftplug_recipe_loaded" in said(
        "plugins", "show", "console"
    )


def test_one_name_of_several_kinds_shows_them_all():
    text = said("plugins", "show", "file")
    assert "source file\n" in text
    assert "chat template file\n" in text


def test_an_unknown_name_and_a_broken_plugin(tmp_path):
    with pytest.raises(PluginError, match=r"no plugin and no component is named 'lorra'\. Did you mean 'lora'\?"):
        runner.invoke(app, ["plugins", "show", "lorra"], catch_exceptions=False)
    site = Site(tmp_path / "site")
    file = site.install("import nowhere_at_all")
    site.install(GOOD, name="one")
    site.install(GOOD, name="other")
    broken = site.sftplug("plugins", "show", "acme")
    assert broken.returncode == 2
    assert (
        f"plugin 'acme' (acme 1.2.3) failed to load: ModuleNotFoundError: No module named 'nowhere_at_all' ({file}:1)"
        in (broken.stderr)
    )
    clash = site.sftplug("plugins", "show", "mine")
    assert clash.returncode == 2
    assert "two plugins offer the masking 'mine': one (one 1.2.3), class Mine in " in clash.stderr
    mine = site.sftplug("plugins", "--no-plugin", "other", "show", "mine")
    assert (mine.returncode, mine.stderr) == (0, "")
    assert mine.stdout.endswith("  no options\n\nmasking: mine\n")


@pytest.mark.parametrize(
    ("kind", "name", "component"), OFFERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_example_is_valid(tmp_path, kind, name, component):
    for file in ("rows.jsonl", "template.jinja"):
        (tmp_path / file).write_text("{}\n")
    example = yaml.safe_load(example_of(component))
    sources = example.get("data", {}).get("train", [])
    for source in sources if isinstance(sources, list) else [sources]:
        source.setdefault("format", "messages")  # there are no rows here to read it from
    saved = {"train": {"save_strategy": "epoch"}}  # early stopping restores a checkpoint
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"extends": "quickstart", **saved, **example}))
    refusals, loaded = _load(tmp_path / "recipe.yaml")
    # Where it is refused, it is right as a recipe: it was measured that the library cannot train with it here.
    measured = rf"(peft|transformers) [\d.]+: {re.escape(name)} "
    known = f"{measured}|updates each weight during the backward pass|its rate depends on what evaluations measure"
    known += "|the base is built by"  # and vLLM loads a base by its name
    known += "|makes the column 'weight', and no source reads it as a weight"  # which stands beside it, in the source
    assert all(re.match(known, text) for text in refusals), refusals
    assert refusals or any(type(chosen) is component for _, chosen in loaded.recipe.components()), kind
    # What is shown as an option is one, and all of them are shown.
    fields = {name: field.alias or name for name, field in component.model_fields.items() if name != "type"}
    assert [option.name for option in options_of(component)] == list(fields.values())


def _load(file):
    try:
        return [], load_recipe(str(file))
    except RecipeError as error:
        return [problem.text for problem in error.problems], None


# --- explain ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "base.yaml").write_text(
        "model: {build: tiny}\n"
        "data:\n"
        "  train: {path: rows.jsonl, format: messages}\n"
        "  eval: [{source: file, path: rows.jsonl, format: {type: messages, column: chat}}]\n"
        "masking: [assistant + completion, {tool_calls: 0.5}, {type: roles, roles: [user]}]\n"
        "adapter: {type: lora, r: 8}\n"
        "train:\n"
        "  seed: 7\n"
    )
    file = tmp_path / "mine.yaml"
    file.write_text("extends: base.yaml\ntrain:\n  max_steps: 5\n")
    return file


def explained(*arguments):
    shown = json.loads(said("explain", *arguments, "--json"))
    return {value["path"]: (value["value"], value["origin"], value["plugin"]) for value in shown["values"]}


def test_each_value_is_shown_with_where_it_comes_from_and_who_answers_for_it(recipe):
    values = explained(recipe, "adapter.alpha=16", "data.max_length=64")
    adapters, masking, formats = (f"{name} (sftplug 0.1.0)" for name in ("adapters", "masking", "formats"))
    expected = {
        "model.name_or_path": (None, "default", None),
        "model.build.type": ("tiny", "base.yaml:1 (extended)", "tiny (sftplug 0.1.0)"),
        "data.max_length": (64, "command line", None),
        "data.train[0].source.type": ("file", "base.yaml:3 (extended)", "sources (sftplug 0.1.0)"),
        "data.train[0].source.columns": (None, "default of source file", "sources (sftplug 0.1.0)"),
        "data.train[0].format.type": ("messages", "base.yaml:3 (extended)", formats),
        "data.train[0].format.column": ("messages", "default of format messages", formats),
        "data.eval[0].format.column": ("chat", "base.yaml:4 (extended)", formats),
        "data.too_long.type": ("drop", "default", "length (sftplug 0.1.0)"),
        "masking[0][0].type": ("assistant", "base.yaml:5 (extended)", masking),
        "masking[0][1].type": ("completion", "base.yaml:5 (extended)", masking),
        "masking[1].weight": (0.5, "base.yaml:5 (extended)", masking),
        "masking[2].roles": (["user"], "base.yaml:5 (extended)", masking),
        "quantization.type": ("bf16", f"default of adapter lora: {UNITS}", "quantization (sftplug 0.1.0)"),
        "adapter.type": ("lora", "base.yaml:6 (extended)", adapters),
        "adapter.r": (8, "base.yaml:6 (extended)", adapters),
        "adapter.alpha": (16, "command line", adapters),
        "adapter.dropout": (0.0, "default of adapter lora", adapters),
        "train.seed": (7, "base.yaml:8 (extended)", None),
        "train.max_steps": (5, "mine.yaml:3", None),
        "output": ("runs/mine", "default", None),
    }
    assert {path: values.get(path) for path in expected} == expected
    source = values["data.train[0].source.path"]
    assert source == (str(recipe.parent / "rows.jsonl"), "base.yaml:3 (extended)", "sources (sftplug 0.1.0)")


def test_one_section_or_one_value(recipe):
    assert explained(recipe, "train.seed").keys() == {"train.seed"}
    assert explained(recipe, "masking[1]").keys() == {"masking[1].type", "masking[1].weight"}
    assert all(path.startswith("data.train[0].format.") for path in explained(recipe, "data.train[0].format"))
    with pytest.raises(RecipeError, match=r"adapter\.rr: there is no such value\. Did you mean 'adapter\.r'\?"):
        runner.invoke(app, ["explain", str(recipe), "adapter.rr"], catch_exceptions=False)
    with pytest.raises(RecipeError, match=r"train\.bf16: is not set, so the trainer's own default holds"):
        runner.invoke(app, ["explain", str(recipe), "train.bf16"], catch_exceptions=False)


SPELLINGS = {
    "masking[1].weight": ("masking[1][0].weight", "masking[1].weight"),
    "masking[0][1].type": ("masking[0][1].type",),
    "data.train[0].source.path": ("data.train[0].source.path", "data.train[0].path", "data.train.path"),
    "data.train[0].first": ("data.train[0].first", "data.train.first"),
    "adapter.targets[1]": ("adapter.targets[1]",),
    "chat_template.path": ("chat_template", "chat_template.path"),
}


@pytest.mark.parametrize(("path", "spelling"), [(path, said) for path in SPELLINGS for said in SPELLINGS[path]])
def test_a_value_is_found_however_a_message_a_record_or_an_override_calls_it(recipe, path, spelling):
    template = recipe.parent / "chat.jinja"
    template.write_text("{{ messages }}")
    changed = ("adapter.targets=[q_proj, v_proj]", f"chat_template={{file: {template}}}")
    assert path in explained(recipe, *changed, spelling)


def test_a_part_of_a_value_is_shown_alone_and_what_is_not_there_is_refused(recipe):
    changed = "adapter.targets=[q_proj, v_proj]"
    assert explained(recipe, changed, "adapter.targets[1]")["adapter.targets[1]"][:2] == ("v_proj", "command line")
    for wrong in ("adapter.targets[2]", "masking[0][2].type", "adapter.r.x"):
        with pytest.raises(RecipeError, match="there is no such value"):
            runner.invoke(app, ["explain", str(recipe), changed, wrong], catch_exceptions=False)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_path_that_is_printed_of_a_shipped_recipe_is_found(name):
    loaded = load_recipe(name)
    kept = recorded_origins(recorded(loaded.recipe), loaded)
    printed = [*kept, *(path for path, _ in loaded.recipe.components()), *(value.path for value in origins(loaded))]
    assert [path for path in printed if not origins_at(loaded, path)] == []


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_value_of_every_shipped_recipe_is_explained(name):
    loaded = load_recipe(name)
    found = origins(loaded)
    assert len({value.path for value in found}) == len(found) > 40
    for value in found:
        assert re.fullmatch(r"\S+\.yaml:\d+( \(extended\))?|default( of .+)?", value.origin), value
    # The record of a run says the same of each place.
    kept = recorded_origins(recorded(loaded.recipe), loaded)
    shared = {value.path: value.origin for value in found if value.path in kept}
    assert shared == {path: kept[path] for path in shared}
    assert len(shared) > 0.9 * len(found)
    # Whatever the files say stands somewhere as said: no value is called a default that is none.
    written = [origin for path, origin in loaded.tree.origins.items() if path and path[0] == "train" and len(path) == 2]
    shown = [value.origin.removesuffix(" (extended)") for value in found if value.path.startswith("train.")]
    assert sorted(shown) == sorted(written)


def test_in_a_pipe_a_table_is_plain_and_never_cut(recipe):
    command = [sys.executable, "-m", "sftplug", "explain", str(recipe)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["value", "is", "from", "plugin"]
    assert not set("│┃━─…\x1b") & set(result.stdout)
    assert any(str(recipe.parent / "rows.jsonl") in line for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert re.search(
        r"\n\S+ +\"(bf16|fp16|fp32)\" +default of adapter lora: .+ +quantization \(sftplug 0.1.0\)\n", result.stdout
    )
