"""A plugin ages: an option is renamed, another goes; recipes and runs of an earlier version go on with today's."""

import importlib
import re
import shutil
import sys

import pytest
import yaml
from conftest import TINY, rows, train_file, write_rows
from run.test_held import killed_after
from run.test_survive import outcome

import sftplug
from sftplug import PluginError, RecipeError, RunDirectory, RunError

HEAD = """from typing import Any, Literal

import sftplug


class Gain(sftplug.Masking):
    \"\"\"Weigh by a factor.\"\"\"

    type: Literal["gain"] = "gain"
"""
TAIL = """

@sftplug.hookimpl
def sftplug_maskings():
    return [Gain]
"""
FIRST = """    gain: float = 2.0
    \"\"\"By how much.\"\"\"
    noisy: bool = False
    \"\"\"Print it.\"\"\"

    def weights(self, tokens):
        return tokens.trainable * self.gain
"""
SECOND = """    factor: float = 2.0
    \"\"\"By how much.\"\"\"
    least: float = 0.0
    \"\"\"No weight is smaller.\"\"\"

    def weights(self, tokens):
        return tokens.trainable * max(self.factor, self.least)
"""
UPGRADE = """
    @classmethod
    def upgrade(cls, options, from_version):
        options.pop("noisy", None)
        if "gain" in options:
            options["factor"] = options.pop("gain")
        return options
"""
SAID = "masking 'gain' of plugin gains (acme-gains 2.0) has upgraded options of an earlier version: "


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a version of the distribution, in the place of the one before."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(version, body, point="gains"):
        for old in [*site.glob("*.dist-info"), *site.glob("__pycache__")]:  # two may be written within one second
            shutil.rmtree(old)
        info = site / f"acme_gains-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-gains\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sftplug]\n{point} = gains\n")
        (site / "gains.py").write_text(HEAD + body + TAIL)
        sys.modules.pop("gains", None)
        importlib.invalidate_caches()

    yield put
    sys.modules.pop("gains", None)


TRAIN = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 0,
}


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a recipe with a masking strategy."""

    def write(masking, **sections):
        write_rows(tmp_path / "rows.jsonl", rows())
        recipe = {
            "model": {"build": TINY},
            "data": {"train": {"path": "rows.jsonl"}, "max_length": 256, "eval_fraction": 0.25},
            "chat_template": "chatml",
            "masking": masking,
            "quantization": "fp32",
            "adapter": "lora",
            "train": TRAIN,
            "output": str(tmp_path / "run"),
            **sections,
        }
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return file

    return write


def test_a_run_of_the_first_version_goes_on_with_the_second(install, project, command, tmp_path, capfd):
    install("1.0", FIRST)
    file = project({"type": "gain", "gain": 3.0})
    output = train_file(file).output
    whole = outcome(output)
    killed_after(output, 3)
    install("2.0", SECOND)
    with pytest.raises(RecipeError, match=r"masking\.gain \(mine\.yaml:\d+\): unknown key"):
        train_file(file, overwrite=False)
    with pytest.raises(RecipeError, match=r"unknown key.*The run is of acme-gains 1\.0, and 2\.0 is installed\."):
        RunDirectory.open(output).load_recipe()
    install("2.0", SECOND + UPGRADE)
    resumed = command("train", file)
    assert resumed.exit_code == 0, resumed.exception
    said = capfd.readouterr().err + resumed.output
    assert f"{SAID}`gain: 3.0` -> `factor: 3.0`" in said
    assert re.search(r"warning: masking \(mine\.yaml:\d+\): masking 'gain'", said), said
    assert f"the record of the run: masking[0][0]: {SAID}`gain: 3.0, noisy: false` -> `factor: 3.0`" in said
    assert "masking[0][0].least: the version that began this run did not have it" in said
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == 3
    assert outcome(output) == whole
    assert RunDirectory.open(output).recipe()["masking"] == [[{"type": "gain", "factor": 3.0, "least": 0.0}]]
    assert RunDirectory.open(output).versions()["gains"] == "2.0"


def test_a_recipe_that_was_brought_up_to_date_meanwhile_resumes_the_same_run(install, project, tmp_path):
    install("1.0", FIRST)
    output = train_file(project({"type": "gain", "gain": 3.0})).output
    whole = outcome(output)
    killed_after(output, 3)
    install("2.0", SECOND + UPGRADE)
    with pytest.raises(RunError, match=r"masking\[0\]\[0\]\.factor: 3\.0 -> 4\.0"):
        train_file(project({"type": "gain", "factor": 4.0}), overwrite=False)
    train_file(project({"gain": {"factor": 3.0}}), overwrite=False)
    assert outcome(output) == whole


def test_a_finished_run_is_read_with_the_version_that_is_installed(install, project, command, tmp_path):
    install("1.0", FIRST)
    output = train_file(project({"type": "gain", "gain": 3.0})).output
    before = command("eval", output, "--json").output
    install("2.0", SECOND + UPGRADE)
    assert sftplug.open_run(output).recipe.recipe.masking[0][0].factor == 3.0
    for name, *rest in (
        ("eval",),
        ("merge", "--output", tmp_path / "merged"),
        ("chat", "--prompt", "Hello?", "--max-new-tokens", 4),
    ):
        result = command(name, output, *rest)
        assert result.exit_code == 0, result.exception
        assert f"{SAID}`gain: 3.0, noisy: false` -> `factor: 3.0`" in result.output
        assert "does without" not in result.output
    assert before.strip() in command("eval", output, "--json").output
    assert command("replay", output, "--output", tmp_path / "rows").exit_code == 0


def test_a_recipe_is_upgraded_wherever_an_option_stands(install, project):
    """In a short form, on the command line, as the part of another component; and the origin is told."""
    install("2.0", SECOND + UPGRADE)
    for masking in ({"gain": {"gain": 3.0}}, [{"type": "gain", "gain": 3.0}], [[{"type": "gain", "gain": 3}]]):
        loaded = sftplug.load(project(masking))
        assert loaded.recipe.masking[0][0].factor == 3.0
        (said,) = loaded.aged
        assert "(mine.yaml:" in said
    over = sftplug.load(project("gain"), "masking.gain=5")
    assert over.recipe.masking[0][0].factor == 5.0
    assert "`gain: 5` -> `factor: 5`" in over.warnings()[0]
    assert over.again("masking.factor=6").recipe.masking[0][0].factor == 5.0  # both are said: `upgrade` decides
    today = sftplug.load(project({"gain": {"factor": 3.0}}))
    assert today.aged == ()


# --- a plugin file that became a package ------------------------------------------------------------------------------

BY_NOW = "the plugin file gains.py of this run is installed by now: the run is read with {} (acme-gains 2.0)."


@pytest.mark.parametrize("name", ["gains", "acme_gains"])
def test_a_run_of_a_plugin_file_is_read_with_the_package_that_it_became(name, install, project, command, tmp_path):
    (tmp_path / "gains.py").write_text(HEAD + FIRST + TAIL)
    output = train_file(project({"type": "gain", "gain": 3.0}, plugins=["./gains.py"])).output
    whole = outcome(output)
    killed_after(output, 3)
    install("2.0", SECOND + UPGRADE, name)
    file = (
        project({"gain": {"factor": 3.0}})
        if name == "gains"
        else project({"type": "gain", "gain": 3.0}, plugins=[name])
    )
    resumed = command("train", file)
    assert resumed.exit_code == 0, resumed.exception
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == 3
    assert outcome(output) == whole
    assert RunDirectory.open(output).recipe()["plugins"] == ([] if name == "gains" else [name])


@pytest.mark.parametrize("name", ["gains", "acme_gains"])
def test_a_finished_run_of_a_plugin_file_is_read_with_the_package(name, install, project, command, tmp_path):
    (tmp_path / "gains.py").write_text(HEAD + FIRST + TAIL)
    output = train_file(project({"type": "gain", "gain": 3.0}, plugins=["./gains.py"])).output
    before = command("eval", output, "--json").output
    install("2.0", SECOND + UPGRADE, name)
    run = sftplug.open_run(output)
    assert run.recipe.aged[0] == BY_NOW.format(name)
    assert run.recipe.recipe.masking[0][0].factor == 3.0
    told = command("eval", output, "--json")
    assert before.strip() in told.output
    assert f"warning: {BY_NOW.format(name)}" in told.output
    assert command("replay", output, "--output", tmp_path / "rows").exit_code == 0


def test_a_package_of_the_same_name_that_offers_other_things_is_no_stand_in(install, project, command, tmp_path):
    (tmp_path / "gains.py").write_text(HEAD + FIRST + TAIL)
    output = train_file(project({"type": "gain", "gain": 3.0}, plugins=["./gains.py"])).output
    install("2.0", SECOND)
    (tmp_path / "site" / "gains.py").write_text((HEAD + SECOND + TAIL).replace('"gain"', '"other"'))
    sys.modules.pop("gains", None)
    run = sftplug.open_run(output)
    assert run.recipe.aged == (
        "the run is read with its plugin file gains.py: the installed gains (acme-gains 2.0) offers other things.",
    )
    assert run.recipe.recipe.masking[0][0].gain == 3.0
    with pytest.raises(RecipeError, match=r"Rename the file, or take it out of `plugins:`"):
        sftplug.load(project("gain", plugins=["./gains.py"]))  # a recipe says what it means


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "must return a dict of options by name, not NoneType"),
        ("return {1: 2}", "must return a dict of options by name, not dict"),
        ("return {**options, 'type': 'other'}", "must return options alone, and no `type`: the name stays"),
        ("return options['nothing']", "failed: KeyError: 'nothing'"),
    ],
)
def test_an_upgrade_that_fails_is_told_as_its_plugins(body, says, install, project):
    install("2.0", SECOND + f"\n    @classmethod\n    def upgrade(cls, options, from_version):\n        {body}\n")
    with pytest.raises(PluginError) as caught:
        sftplug.load(project("gain"))
    assert f"masking 'gain' of plugin gains (acme-gains 2.0): upgrade() {says}" in str(caught.value)
    assert "gains.py:" in str(caught.value)


def test_the_version_of_the_record_is_told(install, project, monkeypatch):
    install("1.0", FIRST)
    output = train_file(project("gain")).output
    install("2.0", SECOND + UPGRADE.replace("options.pop", "cls.seen.append(from_version); options.pop", 1))
    gains = importlib.import_module("gains")
    monkeypatch.setattr(gains.Gain, "seen", [], raising=False)
    RunDirectory.open(output).load_recipe()
    assert set(gains.Gain.seen) == {"1.0"}
    gains.Gain.seen.clear()
    sftplug.load(project("gain"))
    assert set(gains.Gain.seen) == {""}


# --- every place of a recipe ------------------------------------------------------------------------------------------

EVERYWHERE = '''from typing import Literal

import sftplug


class Aged:
    @classmethod
    def upgrade(cls, options, from_version):
        if "old" in options:
            options["new"] = options.pop("old")
        return options


class Rows(Aged, sftplug.DatasetSource):
    """Two rows."""

    type: Literal["rows"] = "rows"
    new: int = 0

    def label(self):
        return "rows"

    def rows(self):
        yield from ()


class Lines(Aged, sftplug.DatasetFormat):
    """A format on top of another."""

    type: Literal["lines"] = "lines"
    new: int = 0
    base: sftplug.DatasetFormat

    def to_conversation(self, row):
        return self.base.to_conversation(row)


class Drop(Aged, sftplug.RowProcessor):
    """Nothing is dropped."""

    type: Literal["drop_none"] = "drop_none"
    new: int = 0

    def process(self, row):
        return row.data


class Watch(Aged, sftplug.Callback):
    """Nothing is watched."""

    type: Literal["watch"] = "watch"
    new: int = 0

    def trainer_callback(self):
        from transformers import TrainerCallback

        return TrainerCallback()


@sftplug.hookimpl
def sftplug_dataset_sources():
    return [Rows]


@sftplug.hookimpl
def sftplug_dataset_formats():
    return [Lines]


@sftplug.hookimpl
def sftplug_row_processors():
    return [Drop]


@sftplug.hookimpl
def sftplug_callbacks():
    return [Watch]
'''


def test_options_are_upgraded_at_every_place_of_a_recipe(project, tmp_path):
    (tmp_path / "aged.py").write_text(EVERYWHERE)
    inner = {"type": "lines", "old": 2, "base": "messages"}
    source = {
        "source": "rows",
        "old": 1,
        "format": {"type": "lines", "new": 9, "base": inner},
        "process": ["drop_none"],
    }
    sections = {"plugins": ["./aged.py"], "callbacks": {"watch": {"old": 3}}}
    file = project("assistant", data={"train": source, "process": [{"type": "drop_none", "old": 4}]}, **sections)
    loaded = sftplug.load(file)
    (train,) = loaded.recipe.data.train
    assert (train.source.new, train.format.new, train.format.base.new) == (1, 9, 2)
    assert loaded.recipe.callbacks[0].new == 3
    assert loaded.recipe.data.process[0].new == 4
    places = [sentence.partition(" (")[0] for sentence in loaded.aged]
    assert sorted(places) == ["callbacks", "data.process[0]", "data.train.format.base", "data.train.source"]
    assert all("`old: " in sentence and "(mine.yaml:" in sentence for sentence in loaded.aged)
