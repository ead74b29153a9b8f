"""What a recipe leaves open: filled in by its adapter, else by TRL, told with its origin, and kept by a run."""

import json
import re
import shutil

import pytest
from conftest import rows, write_rows

from sftplug import Adapter, PluginError, RunDirectory, RunError, train_in_words
from sftplug.plugin.components import Component
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe
from sftplug.run import open_session
from sftplug.run.record import record_recipe
from sftplug.training.preflight.notices import notices


def train_of(file, *overrides):
    """Return (value, origin) of each option of the trainer in the resolved recipe."""
    loaded = load_recipe(str(file), overrides)
    return {name: (value, loaded.tree.origins["train", name]) for name, value in loaded.recipe.train.items()}


def test_an_adapter_alone_trains_at_the_rate_that_suits_it(recipe_file):
    for adapter, rate in (("lora", 2e-4), ("qlora", 2e-4), ("full", 2e-5), ("ia3", 3e-3), ("hra", 2e-4)):
        quantization = None if adapter == "qlora" else "fp32"
        found = train_of(recipe_file(adapter=adapter, quantization=quantization, train=None))
        assert found["learning_rate"] == (rate, f"default of adapter {adapter}")
        assert found["lr_scheduler_type"] == ("linear", f"default of adapter {adapter}")
        assert found["warmup_steps"] == (0.03, f"default of adapter {adapter}")
        assert found["num_train_epochs"] == (3.0, "default of TRL")


def test_what_the_recipe_says_wins_and_what_does_not_go_with_it_is_left_out(recipe_file):
    file = recipe_file(adapter="lora", train={"learning_rate": 1e-3})
    assert train_of(file)["learning_rate"] == (1e-3, "recipe.yaml:15")
    assert train_of(file, "train.warmup_steps=7")["warmup_steps"] == (7, "command line")
    assert "num_train_epochs" not in train_of(file, "train.max_steps=4")
    # A rate is one for Adam; a schedule without a warmup has none.
    bare = recipe_file(name="bare", adapter="lora", train=None)
    assert train_of(bare, "train.optim=sgd")["learning_rate"] == (2e-5, "default of TRL")
    assert train_of(bare, "train.optim=paged_adamw_8bit")["learning_rate"][0] == 2e-4
    assert train_of(bare, "train.lr_scheduler_type=constant")["warmup_steps"] == (0, "default of TRL")
    assert train_of(bare, "train.lr_scheduler_type=cosine")["warmup_steps"] == (0.03, "default of adapter lora")


def test_every_family_of_peft_s_types_is_offered_and_all_others_train_as_lora_does():
    from sftplug_peft.rates import FAMILIES, LIKE_LORA, usual_rate
    from sftplug_peft.types import adapter_types

    offered = {deferred.name.removeprefix("peft_") for deferred in adapter_types()}
    listed = [name for family in FAMILIES for name in family.types]
    assert set(listed) <= offered
    assert len(listed) == len(set(listed))
    assert usual_rate("lora") == usual_rate("boft") == usual_rate("of tomorrow") == LIKE_LORA


ADAPTER = """
import sftplug

class Mine(sftplug.Adapter):
    type: str = "mine"
    def peft_config(self): return sftplug.require("peft", needed_by="mine").LoraConfig(target_modules="all-linear")
    def train_defaults(self, recipe): {body}

@sftplug.hookimpl
def sftplug_adapters(): return [Mine]
"""


def test_a_stranger_s_adapter_says_what_suits_it_or_gets_what_suits_its_sort(recipe_file, tmp_path):
    file = recipe_file(adapter="mine", plugins=["mine.py"], train={"max_steps": 2})
    (tmp_path / "mine.py").write_text(ADAPTER.format(body="return {'learning_rate': 7e-3, 'weight_decay': 0.1}"))
    found = train_of(file)
    assert found["learning_rate"] == (7e-3, "default of adapter mine")
    assert found["weight_decay"] == (0.1, "default of adapter mine")
    assert found["warmup_steps"] == (0, "default of TRL")
    (tmp_path / "mine.py").write_text(ADAPTER.format(body="return super().train_defaults(recipe)"))
    assert train_of(file)["learning_rate"] == (2e-4, "default of adapter mine")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "return {'learning_rat': 1.0}",
            r"must return options of `train`, but `learning_rat` unknown option: ",
        ),
        ("return {'learning_rate': 'high'}", r"but `learning_rate` must be float, not 'high'"),
        ("return {'max_length': 8}", r"but `max_length` is set by sftplug: use the recipe's section `data.max_length`"),
        ("return 2e-4", r"must return a dict of options of `train`, not float"),
        ("return 1 / 0", r"train_defaults\(\) failed: ZeroDivisionError"),
    ],
)
def test_what_is_no_option_of_the_trainer_is_a_fault_of_the_plugin(recipe_file, tmp_path, body, text):
    (tmp_path / "mine.py").write_text(ADAPTER.format(body=body))
    with pytest.raises(PluginError, match=rf"adapter 'mine' of plugin mine .*{text}"):
        load_recipe(str(recipe_file(adapter="mine", plugins=["mine.py"])))


# --- told -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "rate", "said"),
    [
        ("lora", 2e-5, "2e-05 is 1/10 of what is usual for adapter lora, 0.0002. The run may learn nothing"),
        ("lora", 2e-3, "0.002 is 10 times what is usual for adapter lora, 0.0002. It may spoil"),
        ("lora", 1e-3, None),
        ("lora", 3e-5, None),
        ("full", 1e-3, "0.001 is 50 times what is usual for adapter full, 2e-05. It may spoil"),
        ("full", 2e-5, None),
    ],
)
def test_a_rate_that_is_far_from_what_is_usual_is_told(recipe_file, adapter, rate, said):
    told = notices(load_recipe(str(recipe_file(adapter=adapter, train={"learning_rate": rate}))))
    assert [said in sentence for sentence in told] == ([] if said is None else [True])


def test_what_the_notice_advises_ends_it(recipe_file):
    file = str(recipe_file(adapter="lora", train={"learning_rate": 1e-6}))
    (told,) = notices(load_recipe(file))
    assert told.startswith("train.learning_rate (recipe.yaml:15): 1e-06 is 1/200 of")
    option, value = re.search(r"set `(\S+): (\S+)`", told).groups()
    assert notices(load_recipe(file, [f"{option}={value}"])) == []


def test_a_warmup_that_outlasts_the_run_is_told(recipe_file):
    file = str(recipe_file(adapter="lora", train={"max_steps": 5, "warmup_steps": 50}))
    (told,) = notices(load_recipe(file))
    assert "the rate rises over 50 updates, and the run has 5: it ends before the rate is reached." in told
    assert notices(load_recipe(file, ["train.warmup_steps=0.03"])) == []
    assert notices(load_recipe(file, ["train.max_steps=51"])) == []


def test_a_warmup_that_outlasts_its_epochs_is_told_when_the_rows_are_known(recipe_file, command):
    file = recipe_file(adapter="lora", train={"num_train_epochs": 1, "warmup_steps": 50, "save_strategy": "no"})
    told = r"train\.warmup_steps .*: the rate rises over 50 updates, and the run has (\d+): it"
    (updates,) = re.findall(told, command("check", file).stderr)
    assert f"updates: {updates} of" in command("plan", file).stdout
    assert re.findall(told, command("train", file).stderr) == [updates]
    assert not re.findall(told, command("check", file, f"train.warmup_steps={int(updates) - 1}").stderr)


def test_check_and_plan_tell_what_is_in_force_and_what_is_far_off(recipe_file, command):
    file = recipe_file(adapter="lora", train=None)
    checked = command("check", file, "train.warmup_steps=0")
    assert checked.exit_code == 0
    for line in (
        r"learning rate +0.0002 +default of adapter lora",
        r"schedule +linear +default of adapter lora",
        r"warmup +none +command line",
        r"epochs +3 +default of TRL",
        r"rows of a batch +8 +default of TRL",
    ):
        assert re.search(line, checked.output), line
    assert "note: train.learning_rate" not in checked.output
    checked = command("check", file, "train.learning_rate=1")
    assert checked.exit_code == 0
    assert "note: train.learning_rate (command line): 1 is 5e+03 times what is usual" in checked.output
    planned = json.loads(command("plan", file, "train.learning_rate=1", "--device", "cpu", "--json").output)
    assert planned["in_force"]["train.learning_rate"] == {"value": 1, "origin": "command line"}
    assert planned["in_force"]["train.warmup_steps"] == {"value": 0.03, "origin": "default of adapter lora"}
    assert any("5e+03 times what is usual" in note for note in planned["notes"])


def test_record_card_and_report_of_a_run_say_what_was_in_force(lora_run, command):
    run = RunDirectory.open(lora_run)
    assert run.recipe()["train"]["warmup_steps"] == 0.03
    assert run.origins()["train.warmup_steps"] == "default of adapter lora"
    assert run.origins()["train.learning_rate"] == "lora.yaml:17"
    card = (lora_run / "README.md").read_text()
    assert "| learning rate | 0.01 | lora.yaml:17 |" in card
    assert "| warmup | over 3% of the updates | default of adapter lora |" in card
    assert "| updates | 12 | lora.yaml:15 |" in card
    report = command("report", lora_run).output
    assert re.search(r"learning rate +0.01 \(lora.yaml:17\)", report)
    assert re.search(r"schedule +linear \(default of adapter lora\)", report)


def test_the_options_that_count_are_said_in_words():
    said = list(train_in_words({"learning_rate": 1e-5, "warmup_steps": 20, "num_train_epochs": 2, "max_steps": 1000}))
    assert said == [
        ("learning rate", "1e-05", "train.learning_rate"),
        ("warmup", "over 20 updates", "train.warmup_steps"),
        ("updates", "1,000", "train.max_steps"),
    ]


# --- kept by a run ----------------------------------------------------------------------------------------------------


def record(folder, loaded):
    """Write the record of a run that has begun; return its folder."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"format": 1, "state": "running"}))
    record_recipe(RunDirectory(folder), loaded)
    return RunDirectory.open(folder)


def forget_defaults(run):
    """Take out of a record what those of the first sftplug did not hold."""
    recipe, origins = run.recipe(), run.origins()
    kept = {name for name in recipe["train"] if not origins[f"train.{name}"].startswith("default of ")}
    recipe["train"] = {name: value for name, value in recipe["train"].items() if name in kept}
    (run.path / "recipe.yaml").write_text(json.dumps(recipe))
    run.write("origins.json", {path: origin for path, origin in origins.items() if not origin.endswith(" of TRL")})


def test_a_run_that_was_begun_before_adapters_had_defaults_goes_on_as_it_was_begun(recipe_file, run, tmp_path):
    file = recipe_file(
        adapter="lora", train={"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 0}
    )
    run(file, "train.learning_rate=2e-5", "train.warmup_steps=0")
    whole = {entry["step"]: entry["learning_rate"] for entry in RunDirectory(tmp_path / "out").metrics()}
    old = RunDirectory.open(tmp_path / "out")
    old.write(
        "origins.json", {**old.origins(), "train.learning_rate": "default of TRL", "train.warmup_steps": "default"}
    )
    forget_defaults(old)
    assert "learning_rate" not in old.recipe()["train"]
    state = json.loads((old.path / "run.json").read_text())
    old.write("run.json", {**state, "state": "interrupted", "steps": 2})
    for step in (3, 4):
        shutil.rmtree(old.path / f"checkpoint-{step}", ignore_errors=True)
    result = run(file, overwrite=False)
    assert [entry["step"] for entry in result.log if "loss" in entry] == [1, 2, 3, 4]
    assert {entry["step"]: entry["learning_rate"] for entry in old.metrics()} == whole
    assert (old.recipe()["train"]["learning_rate"], old.origins()["train.learning_rate"]) == (2e-5, "default of TRL")


def test_what_was_left_open_is_taken_from_the_record_and_what_was_changed_is_refused(recipe_file, tmp_path):
    file = recipe_file(adapter="lora", train={"max_steps": 4})
    then = load_recipe(str(file), [f"output={tmp_path / 'then'}", "train.learning_rate=5e-4"])
    then.tree.origins["train", "learning_rate"] = "default of adapter lora"  # as if it were usual then
    run = record(tmp_path / "then", then)
    begun = run.load_recipe()
    assert begun.recipe.train["learning_rate"] == 5e-4
    now = load_recipe(str(file), [f"output={tmp_path / 'then'}"])
    with open_session(now, resume=True) as attempt:
        assert attempt.loaded.recipe.train["learning_rate"] == 5e-4
        (note,) = [note for note in attempt.notes if "learning_rate" in note]
    assert note == (
        "train.learning_rate is 0.0005, as the run was begun (default of adapter lora); a new one would get 0.0002 "
        "(default of adapter lora)"
    )
    # What the recipe itself says now, or said then, is not a default: it is compared.
    said = load_recipe(str(file), [f"output={tmp_path / 'then'}", "train.learning_rate=1e-3"])
    with pytest.raises(RunError, match=r"train.learning_rate: 0.0005 -> 0.001"), open_session(said, resume=True):
        pass
    run.write("origins.json", {**run.origins(), "train.learning_rate": "recipe.yaml:15"})
    with pytest.raises(RunError, match=r"train.learning_rate: 0.0005 -> 0.0002"), open_session(now, resume=True):
        pass


def test_an_old_record_is_read_as_it_was_trained(recipe_file, tmp_path):
    run = record(tmp_path / "old", load_recipe(str(recipe_file(adapter="lora", train={"max_steps": 4}))))
    forget_defaults(run)
    read = run.load_recipe().recipe
    assert (read.train["learning_rate"], read.train["warmup_steps"]) == (2e-5, 0)


def test_all_adapters_have_defaults_that_the_trainer_takes(recipe_file):
    """Also those whose options must be given: the method needs none of them."""
    from sftplug.recipe.train_options import problems_in_train

    recipe = load_recipe(str(recipe_file())).recipe
    offers = build_registry(load_plugins()).offers[Adapter]
    assert len(offers) > 40
    for offer in offers.values():
        component: Component = offer.component.model_construct(type=offer.name)
        options = component.train_defaults(recipe)
        assert options["learning_rate"] > 0
        assert not list(problems_in_train(options)), offer.name


def test_a_callback_s_options_come_before_an_adapter_s(recipe_file, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import sftplug\nclass Slow(sftplug.Callback):\n    type: str = 'slow'\n"
        "    def train_options(self, recipe): return {'learning_rate': 1e-6}\n"
        "    def trainer_callback(self): raise NotImplementedError\n"
        "@sftplug.hookimpl\ndef sftplug_callbacks(): return [Slow]\n"
    )
    write_rows(tmp_path / "rows.jsonl", rows())
    file = recipe_file(adapter="lora", callbacks=["slow"], plugins=["slow.py"], train={"max_steps": 2})
    from sftplug.training.arguments import training_arguments

    recipe = load_recipe(str(file)).recipe
    assert train_of(file)["learning_rate"] == (1e-6, "default of callback slow")
    assert training_arguments(recipe).learning_rate == 1e-6
