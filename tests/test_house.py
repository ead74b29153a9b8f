"""The rules of a house: plugins, policies and defaults for every recipe below a file, with where each comes from."""

import json
import os
import re
import textwrap

import pytest
import yaml
from conftest import SHORT, TINY, rows, write_rows

import sftplug
from sftplug import PluginError, RecipeError, RunError

OFFICE = '''
"""What the office wants."""
import json
import os
from pathlib import Path

import sftplug


class Office(sftplug.Policy):
    """It writes down what it is asked, and forbids what it is told to."""

    type: str = "office"
    log: str = ""
    forbids: tuple[str, ...] = ()
    most: float = 1.0
    raises: bool = False

    def problems(self, recipe, command):
        if self.log:
            with Path(self.log).open("a") as stream:
                stream.write(command + "\\n")
        if self.raises:
            raise ZeroDivisionError("in the office")
        if command in self.forbids:
            yield f"no {command} on Fridays"
        if recipe.train["learning_rate"] > self.most:
            yield f"the rate {recipe.train['learning_rate']} is above {self.most}"


class Lines(sftplug.DatasetSource):
    """Lines of a file, as questions that are answered by themselves."""

    type: str = "lines"
    file: sftplug.InputPath

    def label(self):
        return "lines"

    def rows(self):
        for number, line in enumerate(Path(self.file).read_text().splitlines(), 1):
            turns = [{"role": "user", "content": line}, {"role": "assistant", "content": line}]
            yield sftplug.Row({"messages": turns}, f"{self.file}:{number}")


@sftplug.hookimpl
def sftplug_policies():
    return [Office]


@sftplug.hookimpl
def sftplug_dataset_sources():
    return [Lines]


@sftplug.hookimpl
def sftplug_run_finished(recipe):
    Path(recipe.output, "finished.txt").write_text("the office knows")
'''


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Return a function that writes a house file, and the plugin file `office.py` beside it."""
    monkeypatch.chdir(tmp_path)

    def write(text, folder=tmp_path):
        (folder / "office.py").write_text(OFFICE)
        (folder / "sftplug.toml").write_text(textwrap.dedent(text).lstrip("\n"))
        return folder / "sftplug.toml"

    return write


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe into the folder `team`, its sections laid over a small one."""
    (tmp_path / "team").mkdir(exist_ok=True)

    def write(name="recipe", **sections):
        write_rows(tmp_path / "team" / "rows.jsonl", rows(8))
        data = {
            "model": {"build": TINY},
            "data": {"train": {"path": "rows.jsonl", "format": "messages"}},
            "quantization": "fp32",
            "adapter": "lora",
            "train": {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1},
            "output": str(tmp_path / "runs" / "out"),
            **sections,
        }
        file = tmp_path / "team" / f"{name}.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}, sort_keys=False))
        return file

    return write


def refusal(call, *arguments, kind=RecipeError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    return str(caught.value)


# --- defaults ---------------------------------------------------------------------------------------------------------

DEFAULTS = """
    # What suits our machines.
    [defaults]
    chat_template = "chatml"

    [defaults.train]
    learning_rate = 1e-2
    weight_decay = 0.25
"""


def test_defaults_lie_beneath_the_recipe_what_it_extends_and_overrides(house, recipe, tmp_path):
    house(DEFAULTS)
    (tmp_path / "team" / "base.yaml").write_text("train: {weight_decay: 0.5}\n")
    found = sftplug.load(recipe(extends="base.yaml"), "train.seed=7")
    assert found.recipe.chat_template.type == "chatml"
    assert (found.recipe.train["learning_rate"], found.recipe.train["weight_decay"]) == (1e-2, 0.5)
    said = {value.path: value.origin for value in sftplug.explain(found).values}
    assert said["train.learning_rate"] == "sftplug.toml:6 (house file)"
    assert said["train.weight_decay"] == "base.yaml:1 (extended)"
    assert said["chat_template.type"] == "sftplug.toml:3 (house file)"
    assert said["train.seed"] == "python"


def test_what_the_house_gives_is_recorded_shown_and_blamed_with_its_line(house, recipe, command, tmp_path):
    file = house(DEFAULTS)
    result = command("train", recipe())
    assert result.exit_code == 0, result.exception
    assert f"note: the house file {file} is in force: 3 defaults" in result.output
    assert re.search(r"learning rate +0.01 +sftplug.toml:6 \(house file\)", result.output)
    run = sftplug.RunDirectory.open(tmp_path / "runs" / "out")
    assert run.origins()["train.weight_decay"] == "sftplug.toml:7 (house file)"
    known = run.state().house
    assert known["file"] == str(file)
    assert known["defaults"] == ["chat_template", "train.learning_rate", "train.weight_decay"]
    assert len(known["sha256"]) == 64
    house(DEFAULTS.replace("weight_decay", "wieght_decay"))
    said = refusal(sftplug.load, recipe())
    assert "train.wieght_decay (sftplug.toml:7): " in said
    assert "Did you mean 'weight_decay'?" in said


def test_only_defaults_that_reach_the_recipe_are_counted_and_recorded(house, recipe, tmp_path):
    """A bare name says all of an adapter, `build` takes the place of a name, and the recipe has a rate of its own."""
    house("""
        [defaults]
        chat_template = "chatml"
        adapter = {r = 4}
        model = {name_or_path = "org/other"}
    """)
    found = sftplug.load(recipe(adapter="lora"))
    assert found.recipe.adapter.r == 16
    assert found.house.given == ("chat_template",)
    run = sftplug.train(found, show=False)
    assert sftplug.RunDirectory.open(run.output).state().house["defaults"] == ["chat_template"]


def test_a_component_of_a_default_gives_way_to_another_and_takes_options(house, recipe):
    house('[defaults.adapter]\ntype = "lora"\nr = 4\n[defaults.model]\nname_or_path = "org/other"\n')
    assert sftplug.load(recipe(adapter={"lora": {"alpha": 3}}, chat_template="chatml")).recipe.adapter.r == 4
    found = sftplug.load(recipe(adapter="full", chat_template="chatml")).recipe
    assert (found.adapter.type, found.model.name_or_path, found.model.build.type) == ("full", None, "tiny")


def test_the_record_of_a_run_has_everything_and_takes_no_defaults(house, recipe, tmp_path):
    run = sftplug.train(recipe(chat_template="chatml"), show=False)
    house("[defaults.train]\nadam_beta1 = 0.5\n")
    assert "adam_beta1" not in sftplug.open_run(run.output).recipe.recipe.train
    assert sftplug.load(recipe(chat_template="chatml")).recipe.train["adam_beta1"] == 0.5


# --- which file -------------------------------------------------------------------------------------------------------


def test_the_nearest_file_above_the_recipe_holds_unless_the_environment_names_one(house, recipe, tmp_path, monkeypatch):
    house("[defaults]\nchat_template = 'plain'\n")
    assert sftplug.load(recipe()).recipe.chat_template.type == "plain"
    (tmp_path / "team" / "sftplug.toml").write_text("defaults.chat_template = 'chatml'\n")
    assert sftplug.load(recipe()).recipe.chat_template.type == "chatml"
    # A dict, and a recipe that is shipped, are of the working folder.
    assert sftplug.load(yaml.safe_load(recipe().read_text()), "data.train.path=team/rows.jsonl").house.file == (
        tmp_path / "sftplug.toml"
    )
    assert sftplug.load("quickstart").house.file == tmp_path / "sftplug.toml"
    (tmp_path / "elsewhere.toml").write_text("[defaults]\nchat_template = 'llama3'\n")
    monkeypatch.setenv("SFTPLUG_CONFIG", str(tmp_path / "elsewhere.toml"))
    found = sftplug.load(recipe())
    assert found.recipe.chat_template.type == "llama3"
    assert sftplug.explain(found, "chat_template").values[0].origin == "elsewhere.toml:2 (house file)"
    monkeypatch.setenv("SFTPLUG_CONFIG", str(tmp_path / "gone.toml"))
    assert "gone.toml, which SFTPLUG_CONFIG names, does not exist." in refusal(sftplug.load, recipe())
    monkeypatch.setenv("SFTPLUG_CONFIG", "")
    assert sftplug.load(recipe(chat_template="chatml")).house.file is None


def test_a_file_of_somebody_else_is_refused_until_it_is_named(house, recipe, tmp_path, monkeypatch):
    file = house("plugins = ['./office.py']\n")
    mine = os.getuid()
    if mine == 0:
        os.chown(file, 54321, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    data = yaml.safe_load(recipe(chat_template="chatml").read_text())
    data["data"]["train"]["path"] = "team/rows.jsonl"
    said = refusal(sftplug.load, data)
    assert f"{file} belongs to another user than the recipe" in said
    for name, value in re.findall(r"(SFTPLUG_CONFIG)=(\S*)", said):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert ("office" in sftplug.load(data).active) == bool(value)
    if mine != 0:  # who wrote the recipe could have named the plugin file in it
        assert "office" in sftplug.load(recipe(chat_template="chatml")).active


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = [\n  1,\n", ["house file (sftplug.toml:3): is not valid TOML: "]),
        ("a = 1\nb = = 2\n", ["house file (sftplug.toml:2): is not valid TOML: Invalid value"]),
        (
            "plugin = []\n\n[default.train]\nseed = 1\n[train]\nseed = 2\n",
            [
                "3 problems",
                "plugin (sftplug.toml:1): unknown key. Did you mean 'plugins'? Known: defaults, plugins, policies.",
                "default (sftplug.toml:3): unknown key. Did you mean 'defaults'?",
                "train (sftplug.toml:5): unknown key. Values for recipes stand under `defaults`.",
            ],
        ),
        (
            "plugins = [\n  'adapters',\n  7,\n]\ndefaults = 3\n",
            [
                "2 problems",
                "plugins[1] (sftplug.toml:3): must be a name or a file, not 7.",
                "defaults (sftplug.toml:5): must be a table of a recipe's sections, not 3.",
            ],
        ),
        (
            "[defaults]\npolicies = ['limits']\nextends = 'x'\n",
            [
                "defaults.policies (sftplug.toml:2): is no default: policies for every recipe stand under `policies`",
                "defaults.extends (sftplug.toml:3): is no default: a house file extends no recipe.",
            ],
        ),
        ("[defaults.train]\nseed = 2026-01-02\n", ["defaults.train.seed (sftplug.toml:2): must be text, a number"]),
        (
            "plugins = ['acmee', './gone.py']\n\n[[policies]]\ntype = 'limits'\nlearning_rat = 1\n\n"
            "[[policies]]\ntype = 'limit'\n[defaults]\nadaptr = 'lora'\n",
            [
                "5 problems",
                "plugins[0] (sftplug.toml:1): no plugin 'acmee' is installed.",
                "plugins[1] (sftplug.toml:1): plugin file ",
                "policies[0].learning_rat (sftplug.toml:5): unknown key. Did you mean 'learning_rate'?",
                "policies[1] (sftplug.toml:7): 'limit' is not installed. Did you mean 'limits'?",
                "adaptr (sftplug.toml:10): unknown key. Did you mean 'adapter'?",
            ],
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_told_at_once_with_its_lines(house, recipe, text, told):
    house(text)
    said = refusal(sftplug.load, recipe(chat_template="chatml"))
    assert [part for part in told if part not in said] == [], said


def test_a_list_that_is_written_in_two_ways_is_explained(house, recipe):
    house("policies = ['limits']\n[[policies]]\ntype = 'limits'\n")
    assert "is written `name = [...]` or `[[name]]`, and not both." in refusal(sftplug.load, recipe())


def test_a_file_that_is_named_and_is_not_there_is_told_with_the_variable(recipe, tmp_path, monkeypatch):
    for named, what in (("nope.toml", "does not exist"), (str(tmp_path), "is not a file")):
        monkeypatch.setenv("SFTPLUG_CONFIG", named)
        assert f"the house file: {named}, which SFTPLUG_CONFIG names, {what}." in refusal(sftplug.load, recipe())


def test_a_file_that_would_take_long_to_read_is_refused(house, recipe):
    house("x = [\n" + "1,\n" * 600 + "]\n")
    assert "is longer than 50,000 bytes or 500 lines." in refusal(sftplug.load, recipe())


# --- plugins ----------------------------------------------------------------------------------------------------------


def test_plugins_of_the_house_are_in_use_and_a_run_goes_on_without_it(house, recipe, command, tmp_path, monkeypatch):
    file = house("plugins = ['./office.py']\n")
    (tmp_path / "team" / "lines.txt").write_text("one\ntwo\nthree\nfour\n")
    written = recipe(chat_template="chatml", data={"train": {"source": "lines", "file": "lines.txt"}})
    assert command("train", written).exit_code == 0
    output = tmp_path / "runs" / "out"
    assert (output / "finished.txt").read_text() == "the office knows"
    listed = command("plugins").output
    assert re.search(r"office +file .*\n.*\n.*in use for every recipe: sftplug.toml:1", listed), listed
    # The run, and its copy of the plugin file, are of use where there is no house file.
    file.unlink()
    (tmp_path / "office.py").unlink()
    assert sftplug.open_run(output).recipe.recipe.data.train[0].source.type == "lines"


def test_a_plugin_file_may_stand_in_the_recipe_too_and_the_house_has_the_newest(house, recipe, tmp_path):
    house("plugins = ['./office.py']\npolicies = ['office']\n")
    run = sftplug.train(recipe(chat_template="chatml", plugins=["../office.py"]), show=False)
    (tmp_path / "office.py").write_text(OFFICE.replace("no {command} on Fridays", "no {command} on Sundays"))
    (office,) = [plugin for plugin in sftplug.open_run(run.output).recipe.plugins() if plugin.name == "office"]
    assert office.source == tmp_path / "office.py"
    assert "Sundays" in office.source.read_text()


def test_a_plugin_of_the_house_that_is_left_out_takes_its_policy_with_it_and_that_is_refused(house, recipe, command):
    house("plugins = ['./office.py']\npolicies = ['office']\n")
    said = str(command("check", recipe(chat_template="chatml"), "--no-plugin", "office").exception)
    assert "policies[0] (sftplug.toml:2): 'office' is not installed." in said
    assert "Note: blocked with --no-plugin: office." in said


def test_a_default_for_a_section_of_a_plugin_that_is_left_out_is_set_aside_with_a_word(house, recipe, command):
    house("plugins = ['journal']\n[defaults.journal]\nnote = {team = 'a'}\n[defaults.train]\nweight_decay = 0.01\n")
    file = recipe(chat_template="chatml")
    assert sftplug.load(file).recipe.journal.note == {"team": "a"}
    done = command("check", file, "--no-plugin", "journal")
    assert done.exit_code == 0, done.exception
    told = " ".join(done.output.split())
    assert "is in force: 1 default; left out by --no-plugin: journal" in told
    assert "note: the default `journal` (sftplug.toml:2) is set aside: no plugin offers such a section, and " in told
    assert "left out is journal" in told
    loaded = sftplug.load(file, without=["journal"])
    assert loaded.recipe.train["weight_decay"] == 0.01
    assert loaded.house.record()["defaults"] == ["train.weight_decay"]
    assert "left out by `without`: journal" in " ".join(loaded.told())


def test_a_default_for_nothing_that_there_is_stays_an_error(house, recipe):
    house("[defaults.jurnal]\nnote = {team = 'a'}\n")
    (said,) = sftplug.check(recipe(chat_template="chatml"))
    assert said.startswith("jurnal (sftplug.toml:1): unknown key.")


# --- policies ---------------------------------------------------------------------------------------------------------


def test_policies_are_told_with_all_else_and_as_their_own_words(house, recipe):
    house("plugins = ['./office.py']\n\n[[policies]]\ntype = 'office'\nmost = 1e-6\n")
    limits = {"limits": {"learning_rate": 1e-5, "models": ["org/*"]}}
    file = recipe(
        chat_template="chatml",
        policies=limits,
        data={"train": {"path": "rows.jsonl"}, "eval_fraction": 0.5, "eval": {"path": "rows.jsonl"}},
    )
    said = sftplug.check(file)
    assert len(said) == 4
    text = "\n".join(said)
    assert "policies[0] (sftplug.toml:3): policy 'office': the rate 0.0002 is above 1e-06" in text
    assert "policy 'limits': `train.learning_rate` may be 1e-05 at most, and is 0.0002." in text
    assert "policy 'limits': the model build:tiny is not one of those that are allowed: org/*." in text
    assert "data.eval_fraction" in text
    assert "plugin" not in text


def test_a_refusal_says_which_house_file_it_is_by(house, recipe, command):
    file = house("policies = [{limits = {learning_rate = 1e-9}}]\n")
    error = command("check", recipe(chat_template="chatml")).exception
    assert "policies[0] (sftplug.toml:1): policy 'limits'" in str(error)
    assert error.__notes__ == [f"note: the house file {file} is in force: 1 policy"]


@pytest.mark.parametrize("command_name", ["psuh", "report"])
@pytest.mark.parametrize("policy", ["forbid", "limits"])
def test_a_command_of_which_no_policy_is_asked_is_refused(house, recipe, policy, command_name):
    house(f"policies = [{{{policy} = {{commands = ['{command_name}']}}}}]\n")
    said = refusal(sftplug.load, recipe(chat_template="chatml"))
    assert "policies[0].commands[0] (sftplug.toml:1): must be one of " in said
    assert "export, push" in said or "push" in said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            '{"forbid": "train"}',
            "`forbid` takes no bare value. Name its options, each with a value, as in `forbid: {option",
        ),
        (
            '{"forbit": {"commands": ["push"]}}',
            "'forbit' is not installed. Did you mean 'forbid'? Known: ",
        ),
    ],
)
def test_a_policy_that_is_written_wrong_is_told_by_its_name(recipe, written, said):
    assert said in refusal(sftplug.load, recipe(chat_template="chatml", policies=[json.loads(written)]))


def test_no_recipe_takes_away_what_the_house_forbids(house, recipe):
    house("policies = [{forbid = {commands = ['train'], because = 'Ask the release team.'}}]\n")
    said = refusal(sftplug.train, recipe(chat_template="chatml", policies=[]))
    assert "policies[0] (sftplug.toml:1): policy 'forbid': `train` is forbidden here. Ask the release team." in said
    assert refusal(sftplug.train, sftplug.load(recipe(chat_template="chatml"))) == said


def test_a_policy_that_fails_is_its_plugin_s_fault(house, recipe):
    house("plugins = ['./office.py']\npolicies = [{type = 'office', raises = true}]\n")
    said = sftplug.check(recipe(chat_template="chatml"))
    assert len(said) == 1
    assert "policy 'office' of plugin office (file): problems() failed: ZeroDivisionError: in the office" in said[0]
    with pytest.raises(PluginError):
        sftplug.train(recipe(chat_template="chatml"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run under a house file that writes down what its policy is asked."""
    folder = tmp_path_factory.mktemp("house")
    write_rows(folder / "rows.jsonl", rows(8))
    (folder / "office.py").write_text(OFFICE)
    log = folder / "asked.txt"
    (folder / "sftplug.toml").write_text(
        f"plugins = ['./office.py']\n[[policies]]\ntype = 'office'\nlog = '{log}'\nforbids = ['push', 'export']\n"
    )
    recipe = {
        "model": {"build": TINY},
        "data": {"train": {"path": "rows.jsonl", "format": "messages"}, "eval_fraction": 0.25},
        "chat_template": "chatml",
        "quantization": "fp32",
        "adapter": "lora",
        "train": {**SHORT, "max_steps": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = sftplug.load(folder / "recipe.yaml", f"output={folder / 'run'}")
    return folder, sftplug.train(loaded, show=False), log


def asked(log):
    found = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def test_every_command_asks_under_its_name(trained, command):
    folder, run, log = trained
    assert asked(log) == ["train"]
    file = str(folder / "recipe.yaml")
    for arguments, names in [
        (("check", file, "--output", folder / "other"), ["check", "train"]),
        (("prepare", file, "--output", folder / "prepared"), ["prepare"]),
        (("preview", file, "-n", "1"), ["preview"]),
        (("plan", file), ["plan"]),
        (("explain", file), []),
        (("eval", run.output), ["eval"]),
        (("chat", run.output, "--prompt", "Hello?", "--max-new-tokens", "2"), ["chat"]),
        (("merge", run.output, "--output", folder / "merged"), ["merge"]),
        (("replay", run.output, "--output", folder / "replayed"), []),
    ]:
        result = command(*arguments)
        assert result.exit_code == 0, (arguments, result.exception or result.output)
        assert asked(log) == names, arguments
    for arguments in (
        ("export", run.output, "zip"),
        ("push", run.output, "me/it"),
        ("push", folder / "merged", "me/it"),
    ):
        said = str(command(*arguments).exception)
        assert f"policies[0] (sftplug.toml:2): policy 'office': no {arguments[0]} on Fridays" in said, said
        assert asked(log) == [arguments[0]]
    assert "no push on Fridays" in refusal(run.push, "me/it")
    assert asked(log) == ["push"]
    # What would be refused at the end of a training is refused before it.
    said = str(command("check", file, "export=zip", "--output", folder / "other").exception)
    assert "policy 'office': no export on Fridays" in said
    assert asked(log) == ["check", "train", "export"]
    assert asked_launch(folder, command, log) == ["train", "launch"]


def asked_launch(folder, command, log):
    """Return what is asked before processes are started, which the policy then forbids."""
    text = (folder / "sftplug.toml").read_text()
    (folder / "sftplug.toml").write_text(text.replace("'push'", "'launch'"))
    said = command("train", folder / "recipe.yaml", "--launch", "ddp,processes=2", "--output", folder / "two")
    assert "no launch on Fridays" in str(said.exception)
    (folder / "sftplug.toml").write_text(text)
    return asked(log)


def test_a_model_of_which_no_recipe_is_known_is_not_pushed_past_a_policy(trained, command, tmp_path):
    folder, run, log = trained
    sftplug.open_run(run.output).merge(folder / "lonely")
    asked(log)
    (folder / "lonely" / ".run").unlink()
    said = str(command("push", folder / "lonely", "me/it").exception)
    assert f"the policies of {folder / 'sftplug.toml'} are asked about a recipe, {folder / 'lonely'} has none" in said
    # What it says helps: of the run, and of what merge makes, policies are asked.
    assert "no push on Fridays" in str(command("push", run.output, "me/it").exception)


def test_a_run_elsewhere_is_held_to_the_rules_that_it_was_begun_under(house, recipe, tmp_path_factory, command):
    house("policies = [{forbid = {commands = ['push']}}]\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    run = sftplug.train(sftplug.load(recipe(chat_template="chatml"), f"output={elsewhere}"), show=False)
    assert "`push` is forbidden here" in str(command("push", run.output, "me/it").exception)


# --- resume -----------------------------------------------------------------------------------------------------------

STOP = """
import sftplug

class Stop(sftplug.Callback):
    type: str = "stop"

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Stopping(TrainerCallback):
            def on_save(self, args, state, control, **kwargs):
                raise sftplug.TrainingError("enough")

        return Stopping()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Stop]
"""


@pytest.fixture
def stopped(house, recipe, tmp_path):
    """An unfinished run with a checkpoint, and its recipe."""
    house("[defaults.train]\nweight_decay = 0.25\n")
    (tmp_path / "team" / "stop.py").write_text(STOP)
    file = recipe(chat_template="chatml", plugins=["./stop.py"], callbacks=["stop"])
    with pytest.raises(sftplug.TrainingError, match="enough"):
        sftplug.train(file, show=False)
    (tmp_path / "team" / "stop.py").write_text(STOP.replace('raise sftplug.TrainingError("enough")', "pass"))
    return file


def test_a_default_that_has_changed_is_another_recipe_and_its_line_is_told(house, stopped):
    house("[defaults.train]\nweight_decay = 0.5\n")
    said = refusal(sftplug.train, stopped, kind=RunError)
    assert "holds an unfinished run of another recipe:" in said
    assert "  train.weight_decay: 0.25 -> 0.5 (sftplug.toml:2, of the house file)" in said


def test_other_rules_with_the_same_defaults_are_told_and_the_run_goes_on(house, stopped, command, tmp_path):
    before = json.loads((tmp_path / "runs" / "out" / "run.json").read_text())
    file = house("policies = ['limits']\n[defaults.train]\nweight_decay = 0.25\n")
    result = command("train", stopped)
    assert result.exit_code == 0, result.exception
    assert f"the house file {file} has changed since; the recipe is the same with it" in result.output
    after = json.loads((tmp_path / "runs" / "out" / "run.json").read_text())
    assert after["id"] == before["id"] != ""
    assert (before["house"]["policies"], after["house"]["policies"]) == ([], ["limits"])


def test_a_rule_that_came_meanwhile_holds_for_a_run_that_is_resumed(house, stopped):
    house("policies = [{limits = {learning_rate = 1e-6}}]\n[defaults.train]\nweight_decay = 0.25\n")
    assert "may be 1e-06 at most" in refusal(sftplug.train, stopped)


# --- what is said of it -----------------------------------------------------------------------------------------------


def test_a_plugin_that_is_left_out_is_not_counted(house, recipe, command):
    file = house('plugins = ["./office.py", "journal"]\n')
    said = command("check", recipe(), "--no-plugin", "office").output
    assert f"note: the house file {file} is in force: 1 plugin; left out by --no-plugin: ./office.py" in said
    listed = command("plugins", "--no-plugin", "journal").output
    assert f"note: the house file {file} is in force: 1 plugin; left out by --no-plugin: journal" in listed


def test_policies_of_an_earlier_version_are_upgraded(house, recipe, tmp_path):
    file = house('plugins = ["./office.py"]\n[[policies]]\ntype = "office"\nlimit = 0.5\n')
    upgrade = """    @classmethod
    def upgrade(cls, options, from_version):
        if "limit" in options:
            options["most"] = options.pop("limit")
        return options

    def problems("""
    office = file.parent / "office.py"
    office.write_text(office.read_text().replace("    def problems(", upgrade, 1))
    loaded = sftplug.load(recipe())
    assert [rule.policy.most for rule in loaded.rules] == [0.5]
    (said,) = loaded.aged
    assert "policy 'office' of plugin office (file) has upgraded options of an earlier version: `limit: 0.5`" in said
    assert "sftplug.toml:" in said


def test_a_default_that_gives_way_to_another_key_is_told(house, recipe, command):
    house('[defaults]\noptimizer = "muon"\n')
    said = "the default `optimizer` (sftplug.toml:2) gives way to `train.optim` of the recipe ({}), which decides"
    loaded = sftplug.load(recipe(), "train.optim=sgd")
    assert loaded.recipe.optimizer is None
    assert [text for text in loaded.house.told() if said.format("python") in text]
    assert len(sftplug.load(recipe()).house.told()) == 1
    house('[defaults.train]\noptim = "sgd"\n')
    told = sftplug.load(recipe(), "optimizer=adamw_torch").house.told()
    assert "the default `train.optim` (sftplug.toml:2) gives way to `optimizer` of the recipe (python)" in told[1]
