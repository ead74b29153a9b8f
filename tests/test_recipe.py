"""A recipe is right, or every problem in it is named at once, with its place."""

import copy
import pickle
import re

import pytest

from sftplug import PluginError, RecipeError
from sftplug.recipe import load_recipe
from sftplug.recipe.yaml import LocatedStr


def problems(file, *overrides, blocked=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file), overrides, blocked)
    return [str(problem) for problem in caught.value.problems]


def test_a_component_with_an_option_is_found_by_the_name_that_people_call_it(recipe_file):
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe_file(adapter="dora")))
    (written,) = re.findall(r"It is 'lora' with an option: `(.*?)`\.", str(caught.value))
    assert load_recipe(str(recipe_file()), [f"adapter={written}"]).recipe.adapter.dora


def test_every_problem_is_named_at_once_with_path_line_and_nearest_name(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    file = tmp_path / "bad.yaml"
    file.write_text(
        "modle: x\n"
        "model: {name_or_path: Qwen/X, revison: main}\n"
        "data:\n"
        "  train:\n"
        "    - path: gone.jsonl\n"
        "      format: {type: messages, colum: x}\n"
        "    - {path: rows.jsonl, format: alpace}\n"
        "  max_length: ten\n"
        "adapter: {type: lorra, r: 3}\n"
        "quantization: {type: nf4, double_quant: 7}\n"
        "masking: [assistent, {rols: [user]}]\n"
        "train:\n"
        "  learning_rat: 1e-4\n"
        "  lr_scheduler_type: cosin\n"
        "  max_length: 3\n"
        "  num_train_epochs: many\n"
        "plugins: [nothere, ./gone.py]\n"
    )
    found = problems(file)
    expected = [
        "modle (bad.yaml:1): unknown key. Did you mean 'model'? Known: adapter, callbacks, chat_template, data, ",
        "model.revison (bad.yaml:2): unknown key. Did you mean 'revision'?",
        "data.train[0].format.colum (bad.yaml:6): unknown key. Did you mean 'column'? Known: calls_in_text, ",
        "data.train[1].format (bad.yaml:7): 'alpace' is not installed. Did you mean 'alpaca'? Known: alpaca, ",
        "data.max_length (bad.yaml:8): must be a whole number, not 'ten'.",
        "adapter (bad.yaml:9): 'lorra' is not installed. Did you mean 'lora'? Known: adalora, adamss, ",
        "quantization.double_quant (bad.yaml:10): must be true or false, not 7.",
        "masking[0] (bad.yaml:11): 'assistent' is not installed. Did you mean 'assistant'?",
        "masking[1] (bad.yaml:11): has no `type`. Did you mean 'roles'?",
        "train.learning_rat (bad.yaml:13): unknown option: trl.SFTConfig has no field of that name. "
        "Did you mean 'learning_rate'?",
        "train.lr_scheduler_type (bad.yaml:14): must be one of linear, cosine, ",
        "train.max_length (bad.yaml:15): is set by sftplug: use the recipe's section `data.max_length`.",
        "train.num_train_epochs (bad.yaml:16): must be float, not 'many'.",
        "plugins[0] (bad.yaml:17): no plugin 'nothere' is installed. Installed: adapters, callbacks, console, ",
        "plugins[1] (bad.yaml:17): plugin file ",
    ]
    assert len(found) == len(expected), "\n".join(found)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start), problem


def test_components_say_what_does_not_go_together(recipe_file):
    (full,) = problems(recipe_file(adapter="full", quantization="nf4"))
    assert full.startswith("adapter (recipe.yaml:20): 'full' trains the base weights, which cannot be trained as nf4.")
    found = problems(recipe_file(adapter="qlora", quantization="bf16"))
    assert "'qlora' needs a 4-bit base, and the recipe's is bf16." in found[0]
    found = problems(recipe_file(adapter={"type": "lora", "init": "pissa"}, quantization="int8"))
    assert "`init: pissa` computes with the weights, which are int8. Use `default`." in found[0]


STRANGER = """
from typing import Any, Literal
from sftplug import Adapter, Quantization, hookimpl

class Sealed(Quantization):
    type: Literal["sealed"] = "sealed"
    bits = 8
    @property
    def adaptable(self): return {adaptable}
    def load_kwargs(self) -> Any: return {{}}

class Tail(Adapter):
    type: Literal["tail"] = "tail"
    trains_base = True
    def peft_config(self) -> None: pass

@hookimpl
def sftplug_quantizations(): return [Sealed]

@hookimpl
def sftplug_adapters(): return [Tail]
"""


def test_a_stranger_s_weights_are_trained_as_they_say(recipe_file, tmp_path):
    """What a backend and an adapter say of themselves is enough: neither needs a `check` of its own."""
    (tmp_path / "stranger.py").write_text(STRANGER.format(adaptable=False))
    file = recipe_file(adapter="lora", quantization="sealed", plugins=["stranger.py"])
    (sealed,) = problems(file)
    assert sealed.startswith("quantization (recipe.yaml:13): no adapter can be trained on sealed weights, and 'lora'")
    (found,) = problems(recipe_file(adapter="tail", quantization="nf4", plugins=["stranger.py"]))
    assert "'tail' trains the base weights, which cannot be trained as nf4. Choose `quantization: bf16`" in found
    # Where the component says why, that is enough.
    (found,) = problems(recipe_file(adapter="lora", quantization="higgs"))
    assert "nothing can be trained on higgs weights" in found
    (tmp_path / "stranger.py").write_text(STRANGER.format(adaptable="'no'"))
    with pytest.raises(PluginError, match=r"'sealed' of plugin stranger .*adaptable\(\) must return True or False"):
        load_recipe(str(recipe_file(adapter="lora", quantization="sealed", plugins=["stranger.py"])))


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model=3", "model (command line): must be a mapping of keys, not 3."),
        ("adapter=3", "adapter (command line): must be a name or a mapping with a `type`, not 3."),
        ("adapter=", "adapter (command line): is empty. Leave the key out, or give it a value."),
        ("adapter={typ: lora}", "adapter (command line): has no `type`. Did you mean 'type'?"),
        ("adapter.r=8", "adapter.r (command line): unknown key. There are no options here."),
        ("adapter={type: lora, targets: q_proj}", "adapter.targets (command line): must be all-linear or a list, not"),
        ("adapter={lora: {r: -1}}", "adapter.r (command line): must be greater than 0, not -1."),
        ("plugins=3", "plugins (command line): must be a list, not 3."),
        ("callbacks=[samples]", "callbacks[0].prompts (command line): is required."),
        ("data.train.format=columns", "data.train.format.user (command line): is required."),
        ("masking={turns: 0}", "masking.last (command line): must be greater than 0, not 0."),
        ("masking=assistant +", "masking (command line): a name is missing beside `+`."),
        ("train.foo.bar=1", "train.foo (command line): unknown option: trl.SFTConfig has no field of that name."),
        (
            "train.eval_strategy=steps",
            "train.eval_strategy (command line): steps evaluates, and no rows are",
        ),
        ("chat_template={", "chat_template: is not valid YAML: "),
    ],
)
def test_a_wrong_value_is_said_in_plain_words_where_it_stands(recipe_file, override, text):
    assert problems(recipe_file(), override)[0].startswith(text)


@pytest.mark.parametrize("where", ["masking", "data.train.masking"])
def test_something_must_say_what_is_trained(recipe_file, where):
    """Strategies that only weigh leave every other token in, the user's words included."""
    (empty,) = problems(recipe_file(), f"{where}=[]")
    assert f"{where} (command line): is empty" in empty
    (weighing,) = problems(recipe_file(), f"{where}=[{{reasoning: mask}}, message_weights]")
    assert "reasoning, message_weights only weighs what another strategy selects: list one that selects" in weighing
    (united,) = problems(recipe_file(), f"{where}=assistant + reasoning")
    assert "`+` unites strategies that select tokens, and `reasoning` weighs them: list it beside them." in united
    load_recipe(str(recipe_file()), [f"{where}=[assistant + all, {{reasoning: mask}}]"])


def test_the_core_says_what_does_not_go_together(recipe_file):
    found = problems(recipe_file(model={"name_or_path": "org/name", "trust_remote_code": True}))
    assert "runs code that comes with the model" in found[0]
    assert "`model.revision`" in found[0]
    found = problems(recipe_file(model={"name_or_path": "org/name", "build": "tiny"}))
    assert found[0].endswith("needs exactly one of `name_or_path` and `build`.")
    found = problems(recipe_file(), "data.train.path=/gone/rows.jsonl")
    assert found[0] == "data.train.path (command line): the file /gone/rows.jsonl does not exist."


def test_quantization_follows_the_adapter_when_none_is_named(recipe_file):
    loaded = load_recipe(str(recipe_file(adapter="qlora", quantization=None)))
    assert loaded.recipe.quantization.type == "nf4"
    assert loaded.tree.origins[("quantization",)] == "default of adapter qlora"
    assert load_recipe(str(recipe_file(quantization=None, adapter="lora"))).recipe.quantization.type == "bf16"
    # Whole weights are trained in 32 bits: in 16, small updates would be rounded away.
    assert load_recipe(str(recipe_file(quantization=None))).recipe.quantization.type == "fp32"


def test_overrides_reach_into_shorthands_and_lists_of_unions_are_read(recipe_file):
    file = recipe_file(adapter="lora", masking=["assistant + completion", {"roles": ["user"]}, {"tool_calls": 0.5}])
    loaded = load_recipe(str(file), ["adapter.r=4", "train.learning_rate=1e-4"])
    assert (loaded.recipe.adapter.type, loaded.recipe.adapter.r) == ("lora", 4)
    assert loaded.recipe.train["learning_rate"] == 1e-4
    assert loaded.tree.origins[("adapter", "r")] == "command line"
    assert [[part.type for part in union] for union in loaded.recipe.masking] == [
        ["assistant", "completion"],
        ["roles"],
        ["tool_calls"],
    ]
    assert loaded.recipe.masking[2][0].weight == 0.5


def test_a_recipe_extends_another_and_replaces_components_whole(recipe_file, tmp_path):
    recipe_file("base", adapter={"type": "lora", "r": 64, "dropout": 0.1})
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nadapter: {type: freeze, train: ['*norm*']}\ntrain: {seed: 7}\n")
    loaded = load_recipe(str(child))
    assert loaded.recipe.adapter.model_dump() == {"type": "freeze", "train": ["*norm*"]}
    assert loaded.recipe.train["seed"] == 7
    assert loaded.recipe.train["max_steps"] == 4
    assert loaded.tree.origins[("train", "max_steps")].startswith("base.yaml:")
    child.write_text("extends: base.yaml\nadapter: {r: 8}\n")
    assert (load_recipe(str(child)).recipe.adapter.r, load_recipe(str(child)).recipe.adapter.dropout) == (8, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "recipe (x.yaml:2): is not valid YAML: the key 'a' stands twice"),
        ("a: [1\n", "recipe (x.yaml:2): is not valid YAML: "),
        ("- 1\n", "recipe (x.yaml:1): must be a mapping of sections"),
        ("", "recipe (x.yaml): is empty"),
        ("extends: x.yaml\n", "extends (x.yaml:1): the recipes extend each other in a circle: x.yaml -> x.yaml"),
        ("extends: gone.yaml\n", "extends (x.yaml:1): there is no such file, and no shipped recipe 'gone.yaml'."),
        (
            "<<: {a: 1}\n",
            "recipe (x.yaml:1): is not valid YAML: `<<` is not read: `extends:` lays one ",
        ),
        ("extends: [1]\n", "extends (x.yaml:1): must be a path or the name of a recipe"),
        (
            "a: !!python/object/apply:os.system [true]\n",
            "a recipe is plain data, and the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not",
        ),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(tmp_path, text, message):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert message in problems(file)[0]


def test_numbers_and_words_mean_what_a_person_means(recipe_file):
    loaded = load_recipe(str(recipe_file()), ["train.learning_rate=2e-4", "train.run_name=on", "train.seed=3"])
    assert loaded.recipe.train["learning_rate"] == 2e-4
    assert loaded.recipe.train["run_name"] == "on"


def test_an_unknown_recipe_names_the_nearest_and_where_to_look():
    found = problems("quickstrt")
    assert found == [
        "recipe: there is no such file, and no shipped recipe 'quickstrt'. "
        "Did you mean 'quickstart'? `sftplug recipes` lists them."
    ]


def test_an_override_must_be_an_assignment(recipe_file):
    assert problems(recipe_file(), "train.seed") == ["train.seed: must be written section.key=value"]


def test_active_plugins_are_those_whose_components_are_named(recipe_file):
    loaded = load_recipe(str(recipe_file()))
    used = ("adapters", "formats", "length", "losses", "masking", "quantization", "sources", "templates", "tiny")
    assert loaded.active == used
    assert {entry["name"] for entry in loaded.provenance()} == set(loaded.active)
    assert all(len(entry["sha256"]) == 64 for entry in loaded.provenance())


def test_no_option_is_infinite_unless_its_component_says_so(recipe_file):
    found = problems(recipe_file(adapter={"type": "lora", "alpha": float("inf")}))
    assert len(found) == 1
    assert found[0].endswith("must be a finite number, not inf.")


def test_texts_of_a_recipe_can_be_copied_and_pickled(tmp_path):
    """Libraries do so with the options that they are given, such as `torch_compile_mode`."""
    text = LocatedStr("default", tmp_path)
    for again in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (again, again.base) == ("default", tmp_path)
