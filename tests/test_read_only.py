"""A recipe is what its record says: nobody who gets it to look at can change it."""

import copy
import json
import pickle
from typing import Literal

import pytest

import sftplug
from sftplug import PluginError, RunDirectory
from sftplug.util.frozen import frozen

HOOK = """import sftplug

@sftplug.hookimpl
def {hook}(recipe):
    {change}
"""
CHANGES = {
    "recipe.train['learning_rate'] = 5.0": "TypeError: a recipe cannot be changed once it is loaded",
    "recipe.train.update(learning_rate=5.0)": "TypeError: a recipe cannot be changed once it is loaded",
    "del recipe.train['learning_rate']": "TypeError: a recipe cannot be changed once it is loaded",
    "recipe.train |= {'learning_rate': 5.0}": "a recipe cannot be changed once it is loaded",
    "recipe.data.train[0].template_kwargs['x'] = 1": "TypeError: a recipe cannot be changed once it is loaded",
    "recipe.train['optim_target_modules'].append('x')": "TypeError: a recipe cannot be changed once it is loaded",
    "recipe.adapter.targets.append('x')": "TypeError: a recipe cannot be changed once it is loaded",
    "recipe.output = 'elsewhere'": "ValidationError: a recipe cannot be changed once it is loaded",
    "recipe.data.max_length = 7": "ValidationError: a recipe cannot be changed once it is loaded",
    "recipe.adapter.r = 7": "ValidationError: a recipe cannot be changed once it is loaded",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_hook_cannot_change_the_recipe(recipe_file, command, tmp_path, change):
    (tmp_path / "mine.py").write_text(HOOK.format(hook="sftplug_recipe_loaded", change=change))
    train = {"max_steps": 1, "learning_rate": 0.01, "optim": "adamw_torch", "optim_target_modules": ["q_proj"]}
    adapter = {"type": "lora", "targets": ["q_proj"], "r": 4}
    result = command("check", recipe_file(plugins=["./mine.py"], adapter=adapter, train=train))
    assert isinstance(result.exception, PluginError), result.output
    said = str(result.exception)
    assert said.startswith("plugin mine (file): sftplug_recipe_loaded() failed: ")
    assert CHANGES[change] in said
    assert "let a callback return it from `train_options`" in said
    assert f"({tmp_path}/mine.py:5" in said


@pytest.mark.parametrize("hook", ["sftplug_trainer_created", "sftplug_run_finished"])
def test_no_later_hook_can_either(recipe_file, command, tmp_path, hook):
    (tmp_path / "mine.py").write_text(HOOK.format(hook=hook, change="recipe.train['learning_rate'] = 5.0"))
    result = command("train", recipe_file(plugins=["./mine.py"], adapter="lora"))
    assert f"plugin mine (file): {hook}() failed: TypeError: a recipe cannot be changed" in str(result.exception)
    assert RunDirectory.open(tmp_path / "out").recipe()["train"]["learning_rate"] == 5e-3


@pytest.mark.parametrize("method", ["check", "train_options"])
def test_a_component_cannot_change_the_recipe_that_it_is_shown(recipe_file, command, tmp_path, method):
    (tmp_path / "mine.py").write_text(
        "import sftplug\n\nclass Mine(sftplug.Callback):\n    type: str = 'mine'\n"
        "    def trainer_callback(self):\n        return None\n"
        f"    def {method}(self, recipe):\n        recipe.train['learning_rate'] = 5.0\n        return {{}}\n\n"
        "@sftplug.hookimpl\ndef sftplug_callbacks():\n    return [Mine]\n"
    )
    result = command("check", recipe_file(plugins=["./mine.py"], callbacks=["mine"], adapter="lora"))
    assert f"callback 'mine' of plugin mine (file): {method}() failed: TypeError: a recipe cannot" in str(
        result.exception
    )


class Options(sftplug.Callback):
    """Every sort of container."""

    type: Literal["options"] = "options"
    table: dict[str, list[int]] = {"a": [1]}  # noqa: RUF012 - pydantic copies defaults
    names: set[str] = {"a"}  # noqa: RUF012

    def trainer_callback(self):
        raise NotImplementedError


def test_what_is_frozen_reads_as_before():
    made = Options(table={"a": [1, 2]})
    still = frozen(made)
    assert still == made
    assert still.model_fields_set == {"table"}
    assert still.model_dump(mode="json") == made.model_dump(mode="json")
    assert json.dumps(still.table) == '{"a": [1, 2]}'
    assert pickle.loads(pickle.dumps(still)) == copy.deepcopy(still) == made
    own = dict(still.table)
    own["b"] = list(own["a"])
    own["b"].append(3)
    assert made.table == {"a": [1, 2]}
    for change in (still.table["a"].sort, still.table.clear, lambda: still.table["a"].__iadd__([1])):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    with pytest.raises(TypeError, match="cannot be changed"):
        still.names.add("b")
