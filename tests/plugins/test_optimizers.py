"""The built-in optimizers: the same as transformers' and torch's own, through the trainer, the plan, and a resume."""

import ast
import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import TINY
from run.test_held import killed_after
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers.training_args import OptimizerNames

import sftplug
from sftplug import Horizon, Loss, ModelError, Optimizer, PluginError, RecipeError, Schedule
from sftplug.model.loading import load_model
from sftplug.model.trained_parameters import trained_parameters
from sftplug.planning.optimizer import sizes
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe
from sftplug.training.preflight import problems_before_rows
from sftplug.training.preflight.trials import small_model
from sftplug.training.train import make_trainer
from sftplug_optimizers.by_name import NAMES, family_of, make_component
from sftplug_optimizers.muon import Muon

HERE = [
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
]
"""What runs on a CPU with the libraries that tests have."""
has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")


def arguments(name, **more):
    """Return what the trainer's options are for transformers, in which each optimizer's own stand as one text."""
    given = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "optim_args": None, "weight_decay": 0.1}
    rest = {"warmup_steps": 0, "optim_target_modules": None, "gradient_accumulation_steps": 1}
    return SimpleNamespace(optim=OptimizerNames(name), learning_rate=1e-2, **{**given, **rest, **more})


def stepped(make, times=3):
    """Return the weights of a small model after some updates by what `make` makes of it."""
    torch.manual_seed(0)
    model = small_model()
    optimizer = make(model)
    for number in range(times):
        torch.manual_seed(number)
        model(torch.randint(8, (2, 8))).square().sum().backward()
        if hasattr(optimizer, "train"):
            optimizer.train()
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def by_transformers(name, **more):
    def make(model):
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments(name, **more), model)
        return kind(trained_parameters(model, 0.1).groups(), **options)

    return make


def by_component(component):
    return lambda model: component.optimizer(trained_parameters(model, 0.1), 1e-2)


def differ(one, other):
    return [name for name, value in one.items() if not value.equal(other[name])]


@pytest.mark.parametrize("name", HERE)
def test_each_is_that_of_transformers(name):
    assert not differ(stepped(by_component(make_component(name)())), stepped(by_transformers(name)))


OTHER = {
    "adamw_torch": ({"beta1": 0.8, "epsilon": 0.1}, {"adam_beta1": 0.8, "adam_epsilon": 0.1}),
    "lion_32bit": ({"beta2": 0.5}, {"adam_beta2": 0.5}),
    "sgd": ({"momentum": 0.5, "nesterov": True}, {"optim_args": "momentum=0.5,nesterov=True"}),
    "rmsprop": ({"alpha": 0.5, "centered": True}, {"optim_args": "alpha=0.5,centered=True"}),
    "ademamix": ({"beta3": 0.9, "alpha": 2.0}, {"optim_args": "beta3=0.9,alpha=2.0"}),
    "schedule_free_adamw": ({"r": 1.0, "beta1": 0.8}, {"optim_args": "r=1.0", "adam_beta1": 0.8}),
}


@pytest.mark.parametrize("name", OTHER)
def test_options_are_transformers_own_by_another_name(name):
    options, said = OTHER[name]
    found = stepped(by_component(make_component(name)(**options)))
    assert not differ(found, stepped(by_transformers(name, **said)))
    assert differ(found, stepped(by_transformers(name)))


VALUES = {"momentum": 0.5, "nesterov": True, "dampening": 0.5}
BESIDE = {"nesterov": {"momentum": 0.5}, "dampening": {"momentum": 0.5}}


@pytest.mark.parametrize("name", HERE)
def test_every_option_changes_what_is_made(name):
    kind, made = make_component(name), {}
    for option, field in kind.model_fields.items():
        if option == "type":
            continue
        default = field.default
        value = VALUES.get(
            option, 7 if default is None else (not default if isinstance(default, bool) else default / 2)
        )
        value = 0.5 if value == 0.0 else value
        for options in (BESIDE.get(option, {}), {**BESIDE.get(option, {}), option: value}):
            model = small_model()
            optimizer = kind(**options).optimizer(trained_parameters(model, 0.1), 1e-2)
            made[len(options), option] = str([{**g, "params": 0} for g in optimizer.param_groups])
            made[len(options), option] += str({**optimizer.defaults})
        few, many = sorted(key for key in made if key[1] == option)
        assert made[few] != made[many], option


def test_every_name_of_transformers_is_offered_with_options_of_its_own():
    offered = build_registry(load_plugins()).offers[Optimizer]
    assert {*NAMES.members("OptimizerNames").values()} == {name.value for name in OptimizerNames}
    assert {name.value for name in OptimizerNames} | {"muon"} == set(offered)
    without = {name.value for name in OptimizerNames if family_of(name.value).__name__ == "LibraryOptimizer"}
    assert not without, "transformers has new ones: give them a family"


def test_what_updates_in_the_backward_pass_is_refused(recipe_file):
    for name in ("lomo", "adalomo", "galore_adamw_layerwise", "apollo_adamw_layerwise"):
        with pytest.raises(RecipeError, match="updates each weight during the backward pass") as refused:
            load_recipe(str(recipe_file()), [f"optimizer={name}"])
        other = refused.value.problems[0].text.rpartition("such as `")[2].removesuffix("`.")
        assert load_recipe(str(recipe_file()), [f"optimizer={other}"]).recipe.optimizer.type == other


def test_what_pages_is_refused_on_a_cpu(recipe_file):
    for name in [name.value for name in OptimizerNames if name.value.startswith("paged_")]:
        (said,) = problems_before_rows(load_recipe(str(recipe_file()), [f"optimizer={name}"]).recipe)
        assert f"optimizer: optimizer {name} pages from the memory of a GPU to that of the CPU" in said
        other = said.rpartition("Choose `")[2].removesuffix("`.")
        assert not problems_before_rows(load_recipe(str(recipe_file()), [f"optimizer={other}"]).recipe)


def test_a_package_that_is_missing_is_said_with_its_name(recipe_file):
    (said,) = problems_before_rows(load_recipe(str(recipe_file()), ["optimizer=grokadamw"]).recipe)
    assert said.startswith("optimizer: optimizer grokadamw: Please install grokadamw with `pip install grokadamw`")


# --- muon -------------------------------------------------------------------------------------------------------------


@has_muon
def test_muon_is_torch_s_for_matrices_and_adamw_for_the_rest():
    def apart(model):
        table, linear, norm = model
        vectors = [linear.bias, norm.weight, norm.bias]
        muon = torch.optim.Muon([linear.weight], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        adamw = [{"params": [table.weight], "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        return Both(muon, torch.optim.AdamW(adamw, lr=1e-2))

    assert not differ(stepped(by_component(Muon())), stepped(apart))


class Both:
    def __init__(self, *parts):
        self.parts = parts

    def step(self):
        [part.step() for part in self.parts]

    def zero_grad(self):
        [part.zero_grad() for part in self.parts]


@has_muon
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_muon_gets_the_matrices_within_the_model(recipe_file, prepared, adapter):
    trainer = trainer_of(recipe_file(adapter=adapter, optimizer="muon"), prepared)
    made = trainer.create_optimizer()
    names = {id(value): name for name, value in trainer.model.named_parameters()}
    apart = {part: set() for part in (0, 1)}
    for group in made.param_groups:
        apart[group["part"]] |= {names[id(value)] for value in group["params"]}
    if adapter == "lora":
        assert not apart[1]
        assert all("lora_" in name for name in apart[0])
    else:
        assert {"model.embed_tokens.weight", "model.norm.weight"} <= apart[1]
        assert all(name.endswith("_proj.weight") for name in apart[0])
        assert len(apart[0]) == 14


def test_muon_as_it_was_first_needs_a_second_rate(recipe_file):
    with pytest.raises(RecipeError, match="Set `adamw_learning_rate: 2e-4`, for one, beside it"):
        load_recipe(
            str(recipe_file()), ["optimizer={muon: original}", "optimizer.type=muon", "optimizer.adjust=original"]
        )
    found = load_recipe(
        str(recipe_file(train=None)), ["optimizer={type: muon, adjust: original, adamw_learning_rate: 2e-4}"]
    )
    assert found.recipe.train["learning_rate"] == 2e-5  # TRL's: that of the adapter is for Adam


@has_muon
def test_the_rates_of_muon_and_adamw_go_down_together(recipe_file, prepared):
    options = {"type": "muon", "adjust": "original", "adamw_learning_rate": 1e-3}
    trainer = trainer_of(
        recipe_file(optimizer=options, schedule="linear", train={**TRAIN, "warmup_steps": 0}), prepared
    )
    rates = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_, optimizer, **kwargs):
            rates.append(sorted({group["lr"] for group in optimizer.param_groups}))

    trainer.add_callback(Watch())
    trainer.train()
    shares = [1, 3 / 4, 2 / 4, 1 / 4]
    assert rates == [pytest.approx(sorted([1e-3 * share, 3e-2 * share])) for share in shares]


# --- schedule-free ----------------------------------------------------------------------------------------------------

TRAIN = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 0,
}
UNSAVED = {**{name: value for name, value in TRAIN.items() if "save" not in name}, "save_strategy": "no"}


def trainer_of(file, prepared, *overrides):
    recipe = load_recipe(str(file), overrides).recipe
    return make_trainer(recipe, load_model(recipe), prepared(file, *overrides))


def test_what_is_evaluated_and_saved_is_the_mean_of_the_weights(recipe_file, prepared, tmp_path):
    """By hand: the mean x of the points z that AdamW goes through, while gradients are taken at y in between."""
    file = recipe_file(
        adapter="lora", optimizer="schedule_free_adamw", train={**TRAIN, "eval_strategy": "steps", "eval_steps": 4}
    )
    trainer = trainer_of(file, prepared, "data.eval_fraction=0.25")
    taken, seen = [], {}

    class Watch(TrainerCallback):
        def on_optimizer_step(self, *_, model, **kwargs):
            taken.append({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})

        def on_evaluate(self, *_, model, **kwargs):
            seen.update({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})

    trainer.add_callback(Watch())
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    saved, checkpoint = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "saved", Path(trainer.args.output_dir) / "checkpoint-4")
    )
    state, beta1 = trainer.optimizer.optimizer.state, 0.9
    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            continue
        z, y = state[parameter]["z"], taken[-1][name]
        mean = (y - (1 - beta1) * z) / beta1  # y = beta1 * x + (1 - beta1) * z
        assert torch.allclose(seen[name], mean, atol=1e-6)
        assert not seen[name].equal(y)
        known = name.replace(".default", "")
        assert saved[known].equal(seen[name])
        assert checkpoint[known].equal(seen[name])


def test_the_name_of_what_is_a_distribution_now_says_which(recipe_file):
    said = r"optimizer .*: 'schedule_free' is offered by sftplug-schedule-free, which is not installed\. Run: "
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(recipe_file(optimizer="schedule_free")))


def test_it_needs_no_schedule_and_says_so(recipe_file):
    loaded = load_recipe(str(recipe_file(adapter="lora", optimizer="schedule_free_adamw", train=None)))
    assert loaded.recipe.train["lr_scheduler_type"] == "constant_with_warmup"
    assert loaded.tree.origins["train", "lr_scheduler_type"] == "default of optimizer schedule_free_adamw"
    assert loaded.recipe.train["warmup_steps"] == 0.03
    for falls in ("train.lr_scheduler_type=cosine", "schedule=cosine"):
        with pytest.raises(RecipeError, match=r"is made for a rate that does not fall, and that of cosine does. Set `"):
            load_recipe(str(recipe_file()), ["optimizer=schedule_free_adamw", falls])
    load_recipe(str(recipe_file()), ["optimizer=schedule_free_adamw", "schedule=constant_with_warmup"])


@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"])
def test_it_is_refused_where_its_other_weights_do_not_reach_the_model(recipe_file, name):
    """FSDP2 keeps what it has gathered for an evaluation: the next update would be that of the mean."""
    for strategy in ("fsdp2", "zero2", "zero3"):
        with pytest.raises(RecipeError, match=r"as `launch: .*` shares them out. Choose `launch: ddp`"):
            load_recipe(str(recipe_file(optimizer=name, launch={"strategy": strategy, "processes": 2})))
    load_recipe(str(recipe_file(optimizer=name, launch={"strategy": "ddp", "processes": 2})))


@pytest.mark.parametrize("name", ["adamw_8bit", "lion_32bit", "ademamix", "rmsprop_bnb", "adafactor"])
def test_what_takes_no_pieces_of_fsdp2_is_refused_there(recipe_file, name):
    with pytest.raises(RecipeError, match=r"as `launch: fsdp2` shares them out. Choose `launch: ddp`"):
        load_recipe(str(recipe_file(optimizer=name, launch={"strategy": "fsdp2", "processes": 2})))


# --- through the trainer ----------------------------------------------------------------------------------------------


def test_it_is_the_run_that_the_trainer_s_options_make(recipe_file, run):
    """With weight decay, a warmup and a schedule: to the bit."""
    train = {**TRAIN, "weight_decay": 0.1, "warmup_steps": 1}
    one = run(recipe_file(name="one", optimizer={"type": "adamw_torch", "beta2": 0.99}, schedule="cosine", train=train))
    weights = (one.output / "model.safetensors").read_bytes()
    said = {"optim": "adamw_torch", "adam_beta2": 0.99, "lr_scheduler_type": "cosine"}
    other = run(recipe_file(name="other", train={**train, **said}))
    assert (other.output / "model.safetensors").read_bytes() == weights
    assert [line.get("learning_rate") for line in one.log] == [line.get("learning_rate") for line in other.log]


class Slowing(Optimizer):
    """Momentum, of a stranger, which keeps it under a name of its own."""

    type: str = "slowing"
    fails: bool = False

    def optimizer(self, trained, learning_rate):
        return Momentum(trained.groups(), learning_rate, self.fails)


class Momentum(torch.optim.Optimizer):
    def __init__(self, groups, learning_rate, fails):
        super().__init__(groups, {"lr": learning_rate, "held": 0.9})
        self.fails = fails

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for value in group["params"]:
                held = self.state[value].setdefault("held", torch.zeros_like(value))
                held.mul_(group["held"]).add_(value.grad)
                value.sub_(held, alpha=group["lr"])
        if self.fails and len(self.state) > 10:
            raise RuntimeError("no more")


class Root(Schedule):
    """The inverse root, of a stranger."""

    type: str = "root"

    def multiplier(self, step, horizon):
        return min((step + 1) / max(horizon.warmup, 1), (step + 1) ** -0.5)


class Half(Loss):
    """Half of it, of a stranger."""

    type: str = "half"

    def token_losses(self, tokens):
        return tokens.nll() / 2


GOES_ON = [
    pytest.param({"optimizer": "muon"}, marks=has_muon),
    {"optimizer": "schedule_free_adamw"},
    {"optimizer": "adamw_8bit", "schedule": {"type": "warmup_stable_decay", "num_decay_steps": 2}},
    {"optimizer": Slowing(), "schedule": Root(), "loss": Half()},
]


@pytest.mark.parametrize("chosen", GOES_ON, ids=lambda chosen: str(chosen["optimizer"]))
def test_a_run_goes_on_to_the_same_bytes(recipe_file, chosen):
    recipe = sftplug.load(recipe_file(adapter="lora", train={**TRAIN, "warmup_steps": 1})).recipe.model_dump(
        mode="json"
    )
    recipe["train"] = {**TRAIN, "warmup_steps": 1}
    data = {**{name: part for name, part in recipe.items() if part is not None}, **chosen}
    output = sftplug.train(copy.deepcopy(data), overwrite=True, show=False).output
    whole = (output / "adapter_model.safetensors").read_bytes()
    killed_after(output, 2)
    resumed = sftplug.train(copy.deepcopy(data), show=False)
    assert sftplug.RunDirectory.open(resumed.output).state().attempts[-1]["from_step"] == 2
    assert (output / "adapter_model.safetensors").read_bytes() == whole
    rates = [line["learning_rate"] for line in resumed.log if "learning_rate" in line]
    assert len(rates) == 4
    assert (output / "recipe.yaml").read_text().count("optimizer:") == 1
    killed_after(output, 2)
    with pytest.raises(sftplug.RunError, match="optimizer"):
        sftplug.train({**data, "optimizer": "sgd", "schedule": "constant_with_warmup"}, show=False)


def test_a_fault_in_a_step_is_blamed_on_the_component(recipe_file):
    recipe = sftplug.load(recipe_file(train=UNSAVED)).recipe.model_dump(mode="json")
    data = {**recipe, "optimizer": Slowing(fails=True), "train": UNSAVED}
    line = Path(__file__).read_text().splitlines().index('            raise RuntimeError("no more")') + 1
    with pytest.raises(PluginError) as blamed:
        sftplug.train(data, overwrite=True, show=False)
    assert str(blamed.value).startswith("optimizer 'slowing' of plugin ")
    assert str(blamed.value).endswith(f": optimizer() failed: RuntimeError: no more ({__file__}:{line})")


# --- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"optimizer": "sgd", "train": {"optim": "sgd"}}, "is not used beside `optimizer: sgd`, whose own options say"),
        ({"optimizer": "sgd", "train": {"optim_args": "momentum=0.9"}}, "is not used beside `optimizer: sgd`, whose"),
        (
            {"optimizer": "muon", "train": {"adam_beta1": 0.8}},
            "is not used beside `optimizer: muon`, whose own options",
        ),
        (
            {"schedule": "linear", "train": {"lr_scheduler_type": "linear"}},
            "is not used beside `schedule: linear`, who",
        ),
        ({"schedule": "linear", "train": {"lr_scheduler_kwargs": {}}}, "is not used beside `schedule: linear`, whose"),
        (
            {"schedule": "constant", "train": {"warmup_steps": 3}},
            "schedule 'constant' knows no warmup. Leave it out, or",
        ),
        ({"schedule": "cosine_with_min_lr"}, "needs one of `min_lr` and `min_lr_rate`, such as `min_lr_rate: 0.1`"),
        ({"schedule": "warmup_stable_decay"}, "num_decay_steps.*is required"),
        ({"schedule": {"type": "polynomial", "power": "high"}}, "must be a number, not 'high'"),
        ({"schedule": "greedy"}, "`train.lr_scheduler_type: greedy`"),
        ({"optimizer": "muon", "launch": {"strategy": "zero2", "processes": 2}}, "as `launch: zero2` shares them out"),
        ({"optimizer": "sgd", "train": {"deepspeed": "ds.json"}}, "may bring an optimizer of its own"),
        ({"schedule": "linear", "train": {"deepspeed": "ds.json"}}, "may bring a schedule of its own"),
        ({"optimizer": {"type": "sgd", "nesterov": True}}, "`nesterov` needs a `momentum`"),
    ],
)
def test_what_would_not_be_obeyed_is_refused(recipe_file, sections, said):
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        load_recipe(str(recipe_file(train={"max_steps": 2, **sections.pop("train", {})}, **sections)))


def test_what_is_laid_over_a_recipe_says_it_anew(recipe_file):
    """As with the source of rows: who extends a recipe cannot take out what stands in it."""
    train = {"max_steps": 2, "optim": "sgd", "optim_args": "momentum=0.5", "lr_scheduler_type": "cosine"}
    base = recipe_file(name="base", train=train)
    over = load_recipe(str(base), ["optimizer=muon", "schedule=linear"])
    assert (over.recipe.optimizer.type, over.recipe.schedule.type) == ("muon", "linear")
    assert not {"optim", "optim_args", "lr_scheduler_type"} & over.recipe.train.keys()
    back = load_recipe(str(base), ["optimizer={type: sgd, momentum: 0.5}", "train.optim=adafactor", "schedule=linear"])
    assert (back.recipe.optimizer, back.recipe.train["optim"]) == (None, "adafactor")
    file = base.with_name("mine.yaml")
    file.write_text("extends: base.yaml\nschedule: {type: cosine, num_cycles: 1.5}\n")
    assert load_recipe(str(file), ["schedule.num_cycles=2.5"]).recipe.schedule.num_cycles == 2.5


def test_what_has_no_rate_of_adam_does_not_get_one(recipe_file):
    for name, rate in (
        ("sgd", 2e-5),
        ("adafactor", 2e-5),
        ("muon", 2e-4),
        ("adamw_8bit", 2e-4),
        ("schedule_free_adamw", 2e-4),
    ):
        loaded = load_recipe(str(recipe_file(adapter="lora", optimizer=name, train=None)))
        assert loaded.recipe.train["learning_rate"] == rate, name
        assert "optim" not in loaded.recipe.train


def test_a_schedule_without_warmup_gets_none(recipe_file):
    for name, warmup in (("constant", 0), ("linear", 0.03), ("inverse_sqrt", 0.03)):
        loaded = load_recipe(str(recipe_file(adapter="lora", schedule=name, train=None)))
        assert loaded.recipe.train["warmup_steps"] == warmup
        assert "lr_scheduler_type" not in loaded.recipe.train


class Dull(Slowing):
    """It has nothing that is asked for."""

    type: str = "dull"
    decays = False
    resumable = False


def test_weight_decay_and_checkpoints_that_would_be_nothing_are_refused(recipe_file):
    recipe = sftplug.load(recipe_file()).recipe.model_dump(mode="json")
    data = {**recipe, "optimizer": Dull(), "train": {"max_steps": 2, "weight_decay": 0.1}}
    with pytest.raises(RecipeError) as refused:
        sftplug.load(data)
    said = str(refused.value)
    assert "optimizer 'dull' has no weight decay. Leave it out." in said
    assert (
        "'dull' keeps state that no checkpoint holds, so no run could resume from one. Choose another, or set" in said
    )
    sftplug.load({**data, "train": {"max_steps": 2, "save_only_model": True}})


# --- planned and shown ------------------------------------------------------------------------------------------------


COUNTED = [
    pytest.param("muon", marks=has_muon),
    "adamw_8bit",
    "schedule_free_adamw",
    "adafactor",
    "{type: sgd, momentum: 0.5}",
]


@pytest.mark.parametrize("name", COUNTED)
def test_the_plan_counts_the_state_that_a_run_keeps(recipe_file, prepared, name):
    file = recipe_file(adapter="full", optimizer=yaml.safe_load(name))
    trainer = trainer_of(file, prepared, "train.save_strategy=no")
    trainer.train()
    kept, name = sum(sizes(dict(trainer.optimizer.optimizer.state)).values()), trainer.chosen_optimizer.type
    planned = sftplug.plan(file, rows=24)
    assert (planned.plan.memory.optimizer.low, planned.plan.memory.optimizer.high) == (kept, kept)
    assert planned.plan.settings["optimizer"] == name
    assert planned.to_dict()["in_force"]["optimizer.type"]["value"] == name
    assert not [note for note in planned.notes if "unknown" in note]


def test_an_optimizer_that_cannot_be_counted_is_said_to_be_unknown(recipe_file):
    class Numbers(Slowing):
        """It looks at numbers."""

        type: str = "numbers"

        def optimizer(self, trained, learning_rate):
            if any(float(p.value.sum()) < -1e9 for p in trained.parameters):
                raise ModelError("never")
            return super().optimizer(trained, learning_rate)

    data = {**sftplug.load(recipe_file()).recipe.model_dump(mode="json"), "optimizer": Numbers()}
    data["train"] = {"max_steps": 2}
    planned = sftplug.plan(data, rows=24)
    assert [note for note in planned.notes if "unknown optimizer state: 'numbers' does not say what it keeps" in note]
    assert planned.plan.memory.optimizer.low == 0


def test_a_plan_that_is_too_large_offers_the_optimizer_in_8_bits_where_the_recipe_names_one(recipe_file):
    file = recipe_file(model={"build": {**TINY, "hidden_size": 128}}, optimizer="adamw_torch")
    tried = [override for fit in sftplug.plan(file, "510MB", rows=24).tried for override in fit.overrides]
    assert "optimizer=adamw_8bit" in tried
    assert not [override for override in tried if override.startswith("train.optim")]


def test_header_card_and_report_say_what_is_in_force(recipe_file, command, tmp_path):
    file = recipe_file(optimizer="adafactor", schedule="inverse_sqrt", train=UNSAVED)
    said = command("train", file).output
    lines = {" ".join(line.split()) for line in said.splitlines()}
    number = {line.partition(":")[0]: at for at, line in enumerate(file.read_text().splitlines(), 1)}
    chosen = {"optimizer": "adafactor", "schedule": "inverse_sqrt"}
    for name, value in chosen.items():
        assert f"{name} {value} recipe.yaml:{number[name]}" in lines
        assert f"| {name} | {value} | recipe.yaml:{number[name]} |" in (tmp_path / "out" / "README.md").read_text()
        assert f"{value} (recipe.yaml:{number[name]})" in command("report", tmp_path / "out").output
    assert "linear" not in said


def test_a_run_without_either_is_as_it_was(recipe_file):
    recipe = load_recipe(str(recipe_file())).recipe
    assert (recipe.optimizer, recipe.schedule) == (None, None)
    assert recipe.train["lr_scheduler_type"] == "linear"


# --- schedules --------------------------------------------------------------------------------------------------------


def usable():
    options = {"warmup_stable_decay": {"num_decay_steps": 30}, "cosine_with_min_lr": {"min_lr": 1e-4}}
    options["cosine_warmup_with_min_lr"] = {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05}
    offers = build_registry(load_plugins()).offers[Schedule]
    return [(name, options.get(name, {})) for name in sorted(offers) if name not in ("greedy", "reduce_lr_on_plateau")]


@pytest.mark.parametrize(("name", "options"), usable())
def test_each_schedule_is_that_of_transformers(name, options):
    from transformers import get_scheduler

    component = build_registry(load_plugins()).offers[Schedule][name].component(**options)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1e-2)
    scheduler = get_scheduler(name, optimizer, 10, 100, scheduler_specific_kwargs=options)
    horizon = Horizon(100, 10, 1e-2)
    for step in range(100):
        assert 1e-2 * component.multiplier(step, horizon) == scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()


def test_the_whole_of_transformers_schedules_is_offered():
    from transformers.trainer_utils import SchedulerType

    offered = build_registry(load_plugins()).offers[Schedule]
    assert {kind.value for kind in SchedulerType} == set(offered)
    options = {name: set(offer.component.model_fields) - {"type"} for name, offer in offered.items()}
    assert options["cosine"] == {"num_cycles"}
    assert options["warmup_stable_decay"] >= {"num_decay_steps", "decay_type", "min_lr_ratio"}


def test_the_imports_at_the_top_are_light():
    for package in ("sftplug_optimizers", "sftplug_schedules"):
        for file in (Path(__file__).parents[2] / "plugins" / package).glob("*.py"):
            tree = ast.parse(file.read_text())
            modules = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
            assert not {"torch", "transformers", "bitsandbytes", "schedulefree"} & {*map(str, modules)}
