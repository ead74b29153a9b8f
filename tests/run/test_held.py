"""A resumed run has all that it had: what PEFT and transformers leave out of a checkpoint is kept beside it."""

import json
import shutil
from collections import Counter, deque
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from run.mixture import experts
from run.test_survive import outcome
from safetensors.torch import load_file, save_file

from sftplug import ModelError, RunDirectory, RunError, TrainingError
from sftplug.training.object_state import equal, give_back, take_down

TRAIN = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 0,
}


def killed_after(output, step):
    """Leave the folder of a finished run as a kill after `step` would have left it."""
    for folder in output.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    state = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps({**state, "state": "running"}))


def weights(output):
    return load_file(output / "adapter_model.safetensors")


ADAPTERS = {
    "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "prefix_tuning": {"num_virtual_tokens": 4, "prefix_projection": True, "encoder_hidden_size": 16},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "adalora": {"total_step": 6, "tinit": 1, "tfinal": 1, "deltaT": 1, "init_r": 6, "target_r": 2},
    "vera": {"r": 8, "save_projection": False},
    "peft_lora": {"init_lora_weights": "pissa", "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's own advice: a projection is not saved, a head is tied
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_goes_on_as_it_would_have(recipe_file, run, name):
    file = recipe_file(adapter={"type": name, **ADAPTERS[name]}, train=TRAIN)
    output = run(file).output
    whole = outcome(output)
    killed_after(output, 3)
    run(file, overwrite=False)
    assert RunDirectory.open(output).state().attempts[-1]["from_step"] == 3
    assert outcome(output) == whole


def test_experts_are_given_back_though_their_names_on_disk_are_others(recipe_file, run, tmp_path):
    file = experts(recipe_file, tmp_path)
    output = run(file).output
    last, metrics = load_file(output / "model.safetensors"), list(RunDirectory.open(output).metrics())
    kept = load_file(output / "checkpoint-3" / "rest.safetensors")
    assert {name for name in kept if "experts" in name} == {
        "model.layers.0.mlp.experts.gate_up_proj",
        "model.layers.0.mlp.experts.down_proj",
    }
    killed_after(output, 3)
    run(file, overwrite=False)
    assert [entry["loss"] for entry in RunDirectory.open(output).metrics() if "loss" in entry] == [
        entry["loss"] for entry in metrics if "loss" in entry
    ]
    again = load_file(output / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in last.items())


@pytest.mark.parametrize(
    ("name", "only_model"), [("prefix_tuning", False), ("prefix_tuning", True), ("p_tuning", False)]
)
def test_the_best_checkpoint_comes_back_at_the_end(recipe_file, run, name, only_model):
    held_out = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    data = {"train": {"path": "rows.jsonl", "format": "messages"}, "eval": {"path": "rows.jsonl", "format": "messages"}}
    file = recipe_file(
        adapter={"type": name, **ADAPTERS[name]}, train={**TRAIN, **held_out, **best, "save_only_model": only_model}
    )
    file.write_text(json.dumps({**_read(file), "data": {**data, "max_length": 256}}))
    output = run(file).output
    state = json.loads((output / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"].endswith("checkpoint-2")  # the loss falls, and the greatest was asked for
    (saved,), (kept,) = weights(output).values(), weights(output / "checkpoint-2").values()
    assert torch.equal(saved, kept)
    assert not torch.equal(saved, next(iter(weights(output / "checkpoint-6").values())))


def _read(file):
    import yaml

    return yaml.safe_load(file.read_text())


def test_a_checkpoint_without_the_rest_and_one_of_another_base_are_refused(recipe_file, run):
    from sftplug.run.checkpoints import mark_complete

    file = recipe_file(adapter={"type": "p_tuning", **ADAPTERS["p_tuning"]}, train=TRAIN)
    output = run(file).output
    killed_after(output, 3)
    rest = output / "checkpoint-3" / "rest.safetensors"
    kept = load_file(rest)
    other = {**kept, ":frozen": kept[":frozen"].roll(1, dims=0)}
    save_file(other, rest)
    mark_complete(rest.parent)
    with pytest.raises(RunError, match=r"with other weights beneath what is trained: \d+ of \d+ differ, such as"):
        run(file, overwrite=False)
    first = next(name for name in kept if "mlp_head" in name)
    save_file({name: tensor for name, tensor in kept.items() if name != first}, rest)
    mark_complete(rest.parent)
    with pytest.raises(RunError, match=rf"does not hold {first} as it is trained"):
        run(file, overwrite=False)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's own advice: nothing is left of some ranks
def test_what_0_1_0_did_not_keep_of_an_adapter_is_not_made_up(recipe_file, run):
    from sftplug.run.checkpoints import mark_complete

    output = run(recipe_file(adapter={"type": "adalora", **ADAPTERS["adalora"]}, train=TRAIN)).output
    killed_after(output, 3)
    (output / "checkpoint-3" / "rest.safetensors").unlink()
    mark_complete(output / "checkpoint-3")
    with pytest.raises(RunError, match=r"sftplug 0\.1\.0, which did not keep what this adapter has seen"):
        run(output.parent / "recipe.yaml", overwrite=False)


def test_what_is_left_out_of_training_on_the_way_stays_out(recipe_file, prepared, tmp_path):
    """As AdaMSS leaves out some of its subspaces; the optimizer is made of all that is trained at first."""
    from sftplug.model.loading import load_model
    from sftplug.recipe import load_recipe
    from sftplug.training.train import make_trainer

    file = recipe_file(adapter="lora")
    recipe = load_recipe(str(file)).recipe
    models = [make_trainer(recipe, load_model(recipe), prepared(file)) for _ in range(2)]
    name = next(name for name, tensor in models[0].model.named_parameters() if tensor.requires_grad)
    models[0].model.get_parameter(name).requires_grad_(False)
    (tmp_path / "checkpoint").mkdir()
    models[0].held.write(tmp_path / "checkpoint")
    held, parameter = models[1].held, models[1].model.get_parameter(name)
    held.read(tmp_path / "checkpoint")
    assert parameter.requires_grad
    held.go_on()
    assert not parameter.requires_grad
    assert sum(not p.requires_grad for p in held.tensors().values()) == 1


def test_what_peft_leaves_out_is_refused_where_processes_share_the_model(recipe_file, prepared):
    from sftplug.model.loading import load_model
    from sftplug.recipe import load_recipe
    from sftplug.training.train import make_trainer

    def held(name):
        file = recipe_file(adapter={"type": name, **ADAPTERS.get(name, {})}, train={**TRAIN, "save_strategy": "no"})
        recipe = load_recipe(str(file)).recipe
        return make_trainer(recipe, load_model(recipe), prepared(file)).held

    held("lora").refuse_left_out(allocates=False)
    held("prompt_tuning").refuse_left_out(allocates=False)
    with pytest.raises(ModelError, match=r"keeps prompt_encoder\.default\.\S+ where a checkpoint that FSDP or"):
        held("p_tuning").refuse_left_out(allocates=False)
    with pytest.raises(ModelError, match="keeps what it has seen of the gradients where a checkpoint"):
        held("adalora").refuse_left_out(allocates=True)


# --- callbacks --------------------------------------------------------------------------------------------------------

QUIET = '''
from random import Random
from typing import Literal
import sftplug

class Quiet(sftplug.Callback):
    """Remember much, and tell nobody."""
    type: Literal["quiet"] = "quiet"
    opaque: bool = False

    def trainer_callback(self):
        from transformers import TrainerCallback
        opaque = self.opaque

        class Inner:
            pass

        class Helper:
            def __init__(self):
                self.seen = []

        class Shadow(TrainerCallback):
            def __init__(self):
                self.random, self.count, self.helper, self.shadow = Random(1), 0, Helper(), {}

            def on_train_begin(self, args, state, control, model, **kwargs):
                self.model = model
                self.count = 0

            def on_step_end(self, args, state, control, model, processing_class, **kwargs):
                self.tokenizer = processing_class  # no state of its own
                self.count += 1
                self.helper.seen.append(self.random.random())
                for name, parameter in model.named_parameters():
                    if parameter.requires_grad:
                        before = self.shadow.get(name, parameter.detach().clone())
                        self.shadow[name] = 0.5 * before + 0.5 * parameter.detach()
                if opaque:
                    self.parts = [Inner()]
                print("QUIET", self.count, self.helper.seen, sum(float(t.sum()) for t in self.shadow.values()))

        return Shadow()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Quiet]
'''


def test_a_callback_that_tells_nobody_goes_on_where_it_was(recipe_file, run, tmp_path, capsys):
    (tmp_path / "quiet.py").write_text(QUIET)
    file = recipe_file(plugins=["./quiet.py"], adapter="lora", callbacks=["quiet"], train=TRAIN)
    output = run(file).output
    whole = [line for line in capsys.readouterr().out.splitlines() if line.startswith("QUIET")]
    assert len(whole) == 6
    killed_after(output, 3)
    run(file, overwrite=False)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("QUIET")] == whole[3:]


def test_what_a_callback_remembers_and_no_checkpoint_can_hold_is_refused_at_once(recipe_file, run, tmp_path):
    (tmp_path / "quiet.py").write_text(QUIET)
    quiet = [{"type": "quiet", "opaque": True}]
    file = recipe_file(plugins=["./quiet.py"], adapter="lora", callbacks=quiet, train=TRAIN)
    with pytest.raises(
        TrainingError, match=r"Shadow remembers `parts`, with a Inner in it, .*`train.save_strategy: no`"
    ):
        run(file)
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    without = {name: value for name, value in TRAIN.items() if not name.startswith("save_")}
    run(recipe_file(plugins=["./quiet.py"], adapter="lora", callbacks=quiet, train={**without, "save_strategy": "no"}))


HOLDING = """
import sqlite3
import sftplug

class Track(sftplug.Callback):
    'Write to a database.'
    type: str = "track"
    fails: bool = False

    def trainer_callback(self):
        from transformers import TrainerCallback

        class Tracker(TrainerCallback):
            def __init__(self):
                self.database = sqlite3.connect(":memory:")

        return None if self.fails else Tracker()

@sftplug.hookimpl
def sftplug_callbacks():
    return [Track]
"""


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_what_a_callback_holds_and_no_checkpoint_can_is_told_before_the_first_step(recipe_file, command, tmp_path):
    (tmp_path / "track.py").write_text(HOLDING)

    def check(**sections):
        file = recipe_file(plugins=["./track.py"], adapter="lora", **sections)
        return command("check", file)

    said = "holds `database`, with a Connection in it, which a checkpoint cannot hold: a run that resumes begins with"
    told = check(callbacks=["loss_by", {"type": "samples", "prompts": ["Hello?"]}, "track"])
    assert told.exit_code == 0, told.exception
    assert f"callback 'track' of plugin track (file) {said}" in told.output
    assert "note: callbacks[2] (recipe.yaml:" in told.output
    assert said not in check(callbacks=["track"], train={"max_steps": 2, "save_strategy": "no"}).output
    failed = check(callbacks=[{"type": "track", "fails": True}])
    assert "callbacks[0]: callback 'track' of plugin track (file): trainer_callback() must return" in (
        failed.output + str(failed.exception)
    )


class Thing:
    """An object with attributes, and a helper of the same package."""

    def __init__(self, helper=None):
        self.helper = helper
        self.random = Random(3)
        self.generator = np.random.default_rng(3)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.complex64])
def test_a_number_that_became_nan_or_infinite_has_changed(kind):
    nan, infinite, most = float("nan"), float("inf"), torch.finfo(kind).max
    numbers = [torch.tensor([value], dtype=kind) for value in (0.0, nan, infinite, -infinite, most)]
    assert [[equal(one, other) for other in numbers] for one in numbers] == np.eye(5, dtype=bool).tolist()


def test_what_is_taken_down_is_given_back():
    filled = {
        "count": 3,
        "best": float("inf"),
        "seen": {1: [True, None], "two": (1.5, "x")},
        "last": deque([1, 2], maxlen=2),
        "words": Counter("abba"),
        "names": {"b", "a"},
        "average": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "table": np.arange(3),
        "one": np.float32(0.1),
    }
    thing, other = Thing(Thing()), Thing(Thing())
    first = take_down(thing)
    vars(thing.helper).update(filled)
    drawn = thing.random.random(), thing.generator.random()
    changed = take_down(thing).since(first)
    assert {path for path in changed.plain if path[0] == "helper"} == {("helper", name) for name in filled}
    assert {path for path in changed.plain if path[0] != "helper"} == {("random",), ("generator",)}
    for path, text in changed.plain.items():
        give_back(other, path, text, changed.tensors)
    assert repr(vars(other.helper)["last"]) == "deque([1, 2], maxlen=2)"
    for name in filled.keys() - {"average", "table", "last"}:
        assert getattr(other.helper, name) == filled[name]
        assert type(getattr(other.helper, name)) is type(filled[name])
    assert torch.equal(other.helper.average.view(torch.int16), filled["average"].view(torch.int16))
    assert other.helper.table.tolist() == [0, 1, 2]
    assert (other.random.random(), other.generator.random()) == (thing.random.random(), thing.generator.random())
    assert drawn != (other.random.random(), other.generator.random())
    thing.parts = [SimpleNamespace(), 1]
    (opaque,) = take_down(thing).since(first).opaque.items()
    assert (opaque[0], type(opaque[1][0])) == (("parts",), SimpleNamespace)
    assert not take_down(thing).since(take_down(thing)).opaque


# --- optimizers -------------------------------------------------------------------------------------------------------


class Hiding(torch.optim.SGD):
    """It keeps an average where no `state_dict` looks, as AdaLomo does."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.averages, self.tables = {}, torch.ones(2)

    def step(self, closure=None):
        super().step(closure)
        for number, parameter in enumerate(self.param_groups[0]["params"]):
            self.averages[number] = parameter.grad.clone()


class Projector:
    """An object, as GaLore keeps one for each matrix."""


class Objects(torch.optim.SGD):
    """Its state holds objects, which a file that is read without running code cannot give back."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)

    def step(self, closure=None):
        super().step(closure)
        self.state[self.param_groups[0]["params"][0]]["projector"] = Projector()


def stepped(make):
    from sftplug.training.callback_state import refuse_lossy, remembered

    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = make([parameter])
    first = remembered(optimizer)
    parameter.sum().backward()
    optimizer.step()
    refuse_lossy(SimpleNamespace(optimizer=optimizer), first)  # as accelerate wraps it


def test_an_optimizer_that_would_not_come_back_is_refused():
    from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

    stepped(torch.optim.AdamW)
    with pytest.raises(TrainingError, match=r"^the optimizer Hiding keeps averages where no checkpoint looks\. So the"):
        stepped(Hiding)
    with pytest.raises(
        TrainingError, match=r"the optimizer Objects cannot be read back from a checkpoint: Weights only"
    ):
        stepped(Objects)
    layers = LayerWiseDummyOptimizer(optimizer_dict={torch.nn.Parameter(torch.ones(1)): Hiding})
    with pytest.raises(TrainingError, match="keeps optimizer_dict where no checkpoint looks"):
        stepped(lambda _: layers)


@pytest.mark.slow
@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop", "lion_8bit", "ademamix"])
def test_the_optimizers_that_run_here_come_back(recipe_file, run, optim):
    file = recipe_file(adapter="lora", train={**TRAIN, "optim": optim, "learning_rate": 1e-3})
    output = run(file).output
    whole = outcome(output)
    killed_after(output, 3)
    run(file, overwrite=False)
    assert outcome(output) == whole


@pytest.mark.parametrize(
    "schedule",
    [
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1},
        {"lr_scheduler_type": "cosine_with_restarts", "warmup_steps": 2},
    ],
)
def test_schedules_come_back(recipe_file, run, schedule):
    data = {"train": {"path": "rows.jsonl", "format": "messages"}, "eval": {"path": "rows.jsonl", "format": "messages"}}
    file = recipe_file(adapter="lora", train={**TRAIN, **schedule})
    file.write_text(json.dumps({**_read(file), "data": {**data, "max_length": 256}}))
    output = run(file).output
    whole = outcome(output)
    killed_after(output, 3)
    run(file, overwrite=False)
    assert outcome(output) == whole
