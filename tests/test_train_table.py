"""The table of the trainer's options against the installed libraries: each is obeyed, and seen to be, or refused."""

import ast
import base64
import importlib.machinery
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
import transformers
from twins import FAMILIES

from sftplug.errors import ModelError, RecipeError
from sftplug.model.loading import load_model, load_tokenizer
from sftplug.recipe import load_recipe, train_options
from sftplug.recipe.train_options import is_offered, train_fields
from sftplug.recipe.train_table import REFUSED, SUPPORTED, is_known
from sftplug.training.arguments import training_arguments
from sftplug.training.train import make_trainer

pytestmark = pytest.mark.filterwarnings(
    # torch 2.13 warns that its own scheduler API moved; TRL and accelerate still use the old name.
    "ignore::DeprecationWarning",
    # Schedules are gone through here without updates in between.
    "ignore:Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`:UserWarning",
)

TESTS = Path(__file__).parent
OBEYED = [name for names in SUPPORTED.values() for name in names]
NEWER = {
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "dataloader_in_order",
    "dataloader_multiprocessing_context",
    "ddp_static_graph",
    "trackio_bucket_id",
    "trackio_static_space_id",
}
"""What the oldest supported libraries do not have."""
OF_ACCELERATORS = ("fp16", "tf32", "dataloader_pin_memory", "torch_empty_cache_steps", "activation_offloading")
"""Refused on CPUs, as `cli/test_preflight.py` shows; what they do on a GPU is the libraries' own."""
ELSEWHERE = {
    "num_train_epochs": "test_training.py::test_the_rows_of_a_step_are_those_that_the_trainer_gets",
    "gradient_accumulation_steps": "test_training.py::test_float_weights_give_the_weighted_mean_for_any_batch_split",
    "max_grad_norm": "test_training.py::test_a_loss_that_is_not_finite_stops_before_a_checkpoint_and_names_the_rows",
    "average_tokens_across_devices": (
        "test_launch.py::test_two_processes_train_what_one_would_with_the_same_global_batch"
    ),
    "optim_target_modules": "cli/test_preflight.py::test_an_option_that_nothing_heeds_is_a_problem",
    "fsdp": "test_launch.py::MISLED",
    "fsdp_config": "test_launch.py::test_fsdp2_takes_adapters_on_cpus_and_gpus",
    "deepspeed": "test_launch.py::test_two_processes_train_what_one_would_with_the_same_global_batch",
}
"""Option -> the test that shows it, where it is not one of this file's."""
RUNS = {
    "test_evaluations_and_logs_come_when_they_are_asked_for": (
        "logging_strategy", "logging_steps", "logging_first_step", "eval_strategy", "eval_steps", "eval_delay",
        "eval_on_start",
    ),
    "test_checkpoints_are_saved_when_they_are_asked_for": (
        "save_strategy", "save_steps", "save_total_limit", "save_only_model",
    ),
    "test_the_best_checkpoint_is_kept_and_taken": (
        "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    ),
    "test_noise_on_embeddings_changes_the_loss": ("neftune_noise_alpha",),
    "test_activations_are_recomputed_as_the_options_say": (
        "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
        "activation_checkpointing_kwargs",
    ),
    "test_a_compiled_model_trains_to_the_same_losses": ("torch_compile", "torch_compile_backend", "torch_compile_mode"),
    "test_seeds_decide_the_order_of_rows": ("seed", "data_seed", "train_sampling_strategy"),
    "test_a_tracker_is_told_what_the_run_is_called": ("report_to", "run_name", "project"),
    "test_debugging_looks_at_every_number": ("debug",),
    "test_the_auxiliary_loss_of_experts_weighs_what_the_option_says": ("router_aux_loss_coef",),
    "test_processes_meet_as_the_options_say": ("ddp_backend", "ddp_timeout"),
    "test_a_cpu_is_used_where_there_is_a_gpu": ("use_cpu",),
    "test_what_is_refused_says_why_and_what_to_do": ("dataloader_in_order",),
}  # fmt: skip
"""Test of this file -> the options that it shows."""


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_field_of_the_installed_trainer_is_obeyed_or_refused():
    assert len(train_fields()) > 120
    unknown = {name for name in train_fields() if not is_known(name)}
    assert unknown == set(), "say in sftplug/recipe/train_table.py what becomes of them, and show it here"
    assert set(OBEYED) - train_fields().keys() <= NEWER
    assert len(OBEYED) == len(set(OBEYED))
    assert {name for name in OBEYED if name in REFUSED} == {name for name in REFUSED if REFUSED[name].values}


def test_every_field_that_is_obeyed_is_seen_to_be():
    shown = [*SEEN, *ELSEWHERE, *OF_ACCELERATORS, *(name for names in RUNS.values() for name in names)]
    assert [name for name in shown if shown.count(name) > 1 or name not in OBEYED] == []
    assert [name for name in OBEYED if name not in shown] == []
    assert all(callable(globals()[test]) for test in RUNS)
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert name in names_of(ast.parse((TESTS / file).read_text())), place


def names_of(module):
    """Return what a module defines at its top level."""
    functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    targets = [node.targets[0] for node in module.body if isinstance(node, ast.Assign)]
    return functions | {target.id for target in targets if isinstance(target, ast.Name)}


def test_a_field_of_a_newer_library_is_taken_with_a_word(recipe_file, monkeypatch):
    field = train_fields()["seed"]
    monkeypatch.setattr(train_options, "train_fields", lambda: {**train_fields(), "of_tomorrow": field})
    loaded = load_recipe(str(recipe_file()), ["train.of_tomorrow=3"])
    (warning,) = [text for text in loaded.warnings() if "of_tomorrow" in text]
    assert "train.of_tomorrow (command line): is newer than this sftplug: " in warning


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_says_why_and_what_to_do(recipe_file, name):
    value = REFUSED[name].values[0] if REFUSED[name].values else "x"
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe_file()), [f"train.{name}={json.dumps(value)}"])
    (problem,) = caught.value.problems
    assert problem.path == f"train.{name}"
    assert problem.text == str(REFUSED[name]).strip()
    assert is_offered(name) == bool(REFUSED[name].values)
    assert problem.text.endswith(".")


INSTEAD = {
    "warmup_ratio": "train.warmup_steps=0.03",
    "evaluation_strategy": "train.eval_strategy=no",
    "group_by_length": "train.train_sampling_strategy=group_by_length",
    "no_cuda": "train.use_cpu=true",
    "max_length": "data.max_length=100",
    "max_seq_length": "data.max_length=100",
    "truncation_mode": "data.too_long=truncate",
    "packing": "data.packing=none",
    "completion_only_loss": "masking=completion",
    "output_dir": "output=elsewhere",
    "chat_template_path": "chat_template=plain",
}


@pytest.mark.parametrize("name", INSTEAD)
def test_the_way_out_is_one(recipe_file, name):
    option, _, value = INSTEAD[name].partition("=")
    assert option in str(REFUSED[name])
    load_recipe(str(recipe_file()), [f"{option}={value}"])


def test_nothing_is_sent_and_no_token_is_kept_by_an_option_of_the_trainer(recipe_file):
    sending = [name for name in train_fields() if name.startswith(("hub_", "push_", "trackio_"))]
    assert len(sending) >= 7
    assert not any(map(is_offered, sending))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe_file()), ["train.push_to_hub=true", "train.hub_token=hf_abcdefghijklmnopqrstuvwxyz"])
    assert "`sftplug push RUN OWNER/NAME --private` publishes what a run leaves" in str(caught.value)
    assert "abcdefghij" not in str(caught.value)


SPELLINGS = {
    "a mapping": lambda config, folder: config,
    "a file": lambda config, folder: str(folder / "zero.json") if (folder / "zero.json").write_text(config) else "",
    "base64": lambda config, folder: base64.urlsafe_b64encode(config.encode()).decode(),
}


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_what_deepspeed_would_send_or_write_is_refused(recipe_file, tmp_path, spelled):
    config = {
        "wandb": {"enabled": True, "project": "x"},
        "comet": {"enabled": False},
        "csv_monitor": {"enabled": True, "output_path": "/elsewhere"},
        "flops_profiler": {"enabled": True, "output_file": "/elsewhere/flops"},
    }
    value = SPELLINGS[spelled](json.dumps(config), tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe_file()), [f"train.deepspeed={value}"])
    said = [problem.text for problem in caught.value.problems]
    assert [text.split("`")[1] for text in said] == ["wandb", "csv_monitor", "flops_profiler.output_file"]
    assert "`train.report_to: wandb` does so" in said[0]
    load_recipe(str(recipe_file()), ["train.report_to=wandb"])
    load_recipe(
        str(recipe_file()), ['train.deepspeed={"zero_optimization": {"stage": 2}, "comet": {"enabled": false}}']
    )


# --- what can be seen of a trainer that is made -----------------------------------------------------------------------


@pytest.fixture
def made(recipe_file, prepared):
    """Return a function that makes a trainer with options of `train`, and its optimizer and schedule for ten steps."""

    def make(*options, held_out=0.25):
        overrides = [f"data.eval_fraction={held_out}", *(f"train.{option}" for option in options)]
        file = recipe_file(train={"max_steps": 10, "per_device_train_batch_size": 4})
        recipe = load_recipe(str(file), overrides).recipe
        trainer = make_trainer(recipe, load_model(recipe), prepared(file, *overrides))
        trainer.create_optimizer_and_scheduler(10)
        return trainer

    return make


def of_group(name):
    return lambda trainer: trainer.optimizer.param_groups[0][name]


def of_loader(name):
    return lambda trainer: getattr(trainer.get_train_dataloader(), name)


def of_ddp(name):
    return lambda trainer: getattr(trainer.accelerator.ddp_handler, name)


def first_ids(trainer):
    return next(iter(trainer.get_train_dataloader()))["input_ids"]


def rates(trainer):
    found = []
    for _ in range(11):
        found.append(round(of_group("lr")(trainer), 6))
        trainer.lr_scheduler.step()
    return found


def start_method(trainer):
    context = trainer.get_train_dataloader().multiprocessing_context
    return context and context.get_start_method()


def steps(trainer):
    return trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


SEEN = {
    "max_steps": ("max_steps=7", steps, 7),
    "per_device_train_batch_size": ("per_device_train_batch_size=3", lambda t: len(first_ids(t)), 3),
    "per_device_eval_batch_size": (
        "per_device_eval_batch_size=2", lambda t: len(next(iter(t.get_eval_dataloader()))["input_ids"]), 2,
    ),
    "dataloader_drop_last": (
        "dataloader_drop_last=true per_device_train_batch_size=7",
        lambda t: len(t.get_train_dataloader()) * 7 > len(t.train_dataset), False,
    ),
    "pad_to_multiple_of": ("pad_to_multiple_of=64", lambda t: first_ids(t).shape[1] % 64, 0),
    "full_determinism": ("full_determinism=true", lambda t: torch.are_deterministic_algorithms_enabled(), True),
    "learning_rate": ("learning_rate=0.25 warmup_steps=0", lambda t: rates(t)[0], 0.25),
    "lr_scheduler_type": (
        "lr_scheduler_type=constant warmup_steps=0 learning_rate=1", rates, [1.0] * 11,
    ),
    "lr_scheduler_kwargs": (
        "lr_scheduler_kwargs.lr_end=0.5 lr_scheduler_type=polynomial learning_rate=1", lambda t: rates(t)[-1], 0.5,
    ),
    "warmup_steps": ("warmup_steps=0.5 learning_rate=1", lambda t: rates(t)[:6], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "optim": ("optim=sgd", lambda t: type(t.optimizer), torch.optim.SGD),
    "optim_args": ("optim_args=momentum=0.5,nesterov=true optim=sgd", lambda t: (
        t.optimizer.defaults.get("momentum"), t.optimizer.defaults.get("nesterov")), (0.5, True)),
    "weight_decay": ("weight_decay=0.125", of_group("weight_decay"), 0.125),
    "adam_beta1": ("adam_beta1=0.5", of_group("betas"), (0.5, 0.999)),
    "adam_beta2": ("adam_beta2=0.5", of_group("betas"), (0.9, 0.5)),
    "adam_epsilon": ("adam_epsilon=0.5", of_group("eps"), 0.5),
    "bf16": ("bf16=true use_cpu=true", lambda t: t.accelerator.mixed_precision, "bf16"),
    "dataloader_num_workers": ("dataloader_num_workers=1", lambda t: (of_loader("num_workers")(t), len(first_ids(t))),
                               (1, 4)),
    "dataloader_persistent_workers": (
        "dataloader_persistent_workers=true dataloader_num_workers=1", of_loader("persistent_workers"), True,
    ),
    "dataloader_prefetch_factor": (
        "dataloader_prefetch_factor=5 dataloader_num_workers=1", of_loader("prefetch_factor"), 5,
    ),
    "dataloader_multiprocessing_context": (
        "dataloader_multiprocessing_context=forkserver dataloader_num_workers=1", start_method, "forkserver",
    ),
    "ddp_find_unused_parameters": ("ddp_find_unused_parameters=true", of_ddp("find_unused_parameters"), True),
    "ddp_bucket_cap_mb": ("ddp_bucket_cap_mb=7", of_ddp("bucket_cap_mb"), 7),
    "ddp_broadcast_buffers": ("ddp_broadcast_buffers=false", of_ddp("broadcast_buffers"), False),
    "ddp_static_graph": ("ddp_static_graph=true", of_ddp("static_graph"), True),
}  # fmt: skip
"""Option -> how it is set, what is looked at, and what is seen there; without the option it is something else."""


@pytest.mark.parametrize("name", SEEN)
def test_the_trainer_is_made_with_the_option(made, name):
    if name not in train_fields():
        assert name in NEWER
        return
    options, look, seen = SEEN[name]
    given = options.split(" ")
    assert given[0].startswith((f"{name}=", f"{name}."))
    assert look(made(*given[1:])) != seen
    try:
        assert look(made(*given)) == seen
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_cpu_is_used_where_there_is_a_gpu(recipe_file, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    recipe = load_recipe(str(recipe_file()), ["train.use_cpu=true"]).recipe
    assert training_arguments(recipe).device.type == "cpu"


@pytest.mark.parametrize("strategy", ["random", "group_by_length", "sequential"])
def test_seeds_decide_the_order_of_rows(made, strategy):
    def order(*seeds):
        return first_ids(made(f"train_sampling_strategy={strategy}", *seeds, held_out=0)).tolist()

    one, other, of_data = order("seed=1"), order("seed=2"), order("seed=1", "data_seed=2")
    if strategy == "sequential":
        assert one == other == of_data
    else:
        assert one == order("seed=1")
        assert one != other
        assert one != of_data


def test_processes_meet_as_the_options_say(recipe_file, monkeypatch):
    from accelerate import PartialState

    def meet(self, *args, **options):
        raise ConnectionError(options["backend"], options["timeout"].seconds)

    monkeypatch.setattr(PartialState, "__init__", meet)
    monkeypatch.setattr("sftplug.training.arguments.is_launched", lambda: True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    with pytest.raises(ConnectionError) as caught:
        training_arguments(load_recipe(str(recipe_file()), ["train.ddp_timeout=77", "train.ddp_backend=gloo"]).recipe)
    assert caught.value.args == ("gloo", 77)


# --- what can be seen of a run ----------------------------------------------------------------------------------------


def steps_with(result, name):
    return [entry["step"] for entry in result.log if name in entry]


def test_evaluations_and_logs_come_when_they_are_asked_for(recipe_file, run):
    held_out = "data.eval_fraction=0.25"
    by_steps = ["eval_strategy=steps", "eval_steps=2", "eval_delay=3", "eval_on_start=true", "logging_strategy=steps",
                "logging_steps=3", "logging_first_step=true", "save_strategy='no'", "max_steps=6"]  # fmt: skip
    result = run(recipe_file(), held_out, *(f"train.{option}" for option in by_steps))
    assert steps_with(result, "eval_loss") == [0, 4, 6]
    assert steps_with(result, "loss") == [1, 3, 6]
    by_epoch = ["eval_strategy=epoch", "logging_strategy=epoch", "logging_first_step=false", "save_strategy='no'",
                "max_steps=10"]  # fmt: skip
    result = run(recipe_file(train={"per_device_train_batch_size": 4}), held_out, *(f"train.{o}" for o in by_epoch))
    assert steps_with(result, "eval_loss") == steps_with(result, "loss") == [5, 10]


def test_checkpoints_are_saved_when_they_are_asked_for(recipe_file, run, tmp_path):
    def left(*options):
        run(recipe_file(), *(f"train.{option}" for option in options))
        return {folder.name: (folder / "optimizer.pt").is_file() for folder in (tmp_path / "out").glob("checkpoint-*")}

    two = left("save_strategy=steps", "save_steps=2", "max_steps=6", "save_total_limit=2")
    assert two == {"checkpoint-4": True, "checkpoint-6": True}
    weights_only = left("save_strategy=steps", "save_steps=3", "max_steps=4", "save_only_model=true")
    assert weights_only == {"checkpoint-4": False}
    assert left("save_strategy='no'") == {}


def test_the_best_checkpoint_is_kept_and_taken(recipe_file, run, tmp_path):
    """The worst is taken for the best, on purpose: it is the first, and not where the run ends."""
    options = ["eval_strategy=steps", "eval_steps=2", "save_strategy=best", "max_steps=6", "learning_rate=1e-2",
               "load_best_model_at_end=true", "metric_for_best_model=loss", "greater_is_better=true",
               "save_total_limit=1"]  # fmt: skip
    result = run(recipe_file(), "data.eval_fraction=0.25", *(f"train.{option}" for option in options))
    losses = [entry["eval_loss"] for entry in result.log if "eval_loss" in entry]
    assert max(losses) == losses[0]
    saved, first = load_file(tmp_path / "out"), load_file(tmp_path / "out" / "checkpoint-2")
    assert all(torch.equal(saved[name], first[name]) for name in saved)


def load_file(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_noise_on_embeddings_changes_the_loss(recipe_file, run):
    plain, noisy = (run(recipe_file(), "train.max_steps=1", *noise).log[0]["loss"]
                    for noise in ([], ["train.neftune_noise_alpha=5"]))  # fmt: skip
    assert plain != noisy


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_activations_are_recomputed_as_the_options_say(recipe_file, run, monkeypatch, name):
    place = transformers.modeling_utils
    noted, own = [], place.checkpoint
    monkeypatch.setattr(place, "checkpoint", lambda *args, **options: (noted.append(options), own(*args, **options))[1])
    run(recipe_file(), "train.max_steps=1")
    assert noted == []
    if name not in train_fields():
        return
    run(recipe_file(), "train.max_steps=1", f"train.{name}=true", f"train.{name}_kwargs={{use_reentrant: true}}")
    assert {options["use_reentrant"] for options in noted} == {True}
    assert len(noted) == 2  # layers


def test_a_compiled_model_trains_to_the_same_losses(recipe_file, run, monkeypatch):
    """With a compiler that compiles nothing, so that no C++ is needed."""
    noted, own = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: (noted.append(options), own(*args, **options))[1])
    plain = run(recipe_file(), "train.max_steps=2")
    assert noted == []
    compiled = run(recipe_file(), "train.max_steps=2", "train.torch_compile=true", "train.torch_compile_backend=eager")
    assert [options["backend"] for options in noted] == ["eager", "eager"]  # tried before the rows are read
    assert [entry["loss"] for entry in compiled.log if "loss" in entry] == pytest.approx(
        [entry["loss"] for entry in plain.log if "loss" in entry], abs=1e-6
    )


def test_a_tracker_is_told_what_the_run_is_called(recipe_file, run, monkeypatch):
    trackio = MagicMock(__version__="0.1", __spec__=importlib.machinery.ModuleSpec("trackio", None))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    run(recipe_file(), "train.report_to=trackio", "train.run_name=mine", "train.project=ours", "train.max_steps=1")
    told = trackio.init.call_args.kwargs
    assert (told["name"], told["project"]) == ("mine", "ours")
    assert told["space_id"] in (None, "trackio")  # the library's own default, which an older one had
    assert any("train/loss" in call.args[0] for call in trackio.log.call_args_list)
    trackio.finish.assert_called_once()


def test_debugging_looks_at_every_number(recipe_file, run, monkeypatch):
    noted, own = [], transformers.trainer.DebugUnderflowOverflow
    monkeypatch.setattr(transformers.trainer, "DebugUnderflowOverflow", lambda model: (noted.append(model), own(model)))
    run(recipe_file(), "train.debug=underflow_overflow", "train.max_steps=1")
    assert len(noted) == 1


def test_the_auxiliary_loss_of_experts_weighs_what_the_option_says(recipe_file, run, tmp_path):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    load_tokenizer(load_recipe(str(recipe_file())).recipe).save_pretrained(tmp_path / "experts")
    config = Qwen3MoeConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "experts")
    small, large = (
        run(recipe_file(model="./experts"), "train.max_steps=1", f"train.router_aux_loss_coef={weight}").log[0]["loss"]
        for weight in (0.0, 10.0)
    )
    assert large > small + 5


def built(family: str, **options: object) -> dict[str, object]:
    """Return a recipe's model of a family: random weights."""
    return {"build": {"type": "random", "config": {"model_type": family, **options}}}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (built("qwen3_moe", **FAMILIES["qwen3_moe"][1], mlp_only_layers=[0, 1]), "not a mixture"),
        # Granite 4 Micro.
        (built("granitemoehybrid", **{**FAMILIES["granitemoehybrid"][1], "num_local_experts": 0}), "not a mixture"),
        (built("llama4_text", **FAMILIES["llama4"][1]["text_config"]), "Llama4ForCausalLM computes no such loss"),
    ],
    ids=["qwen3_moe", "granitemoehybrid", "llama4_text"],
)
def test_an_auxiliary_loss_that_only_the_configuration_speaks_of_is_not_asked_for(
    recipe_file, run, tmp_path, model, why
):
    file = recipe_file(model=model)
    done = run(file, "train.max_steps=1", "adapter=full")
    assert "aux_loss" not in done.log[0]
    assert json.loads((done.output / "config.json").read_text())["router_aux_loss_coef"] == 0.001
    with pytest.raises(ModelError, match=f"train.router_aux_loss_coef: .*{why}.*Leave it out"):
        run(file, "train.router_aux_loss_coef=0.1", f"output={tmp_path / 'refused'}")


def test_the_auxiliary_loss_of_a_family_that_calls_its_weight_otherwise_is_weighed_too(recipe_file, run):
    """JetMoE has `aux_loss_coef`; a loss that is split by role is not TRL's own."""
    file = recipe_file(model=built("jetmoe", **FAMILIES["jetmoe"][1]), callbacks=["loss_by"])
    assert "aux_loss" in run(file, "train.max_steps=1", "train.router_aux_loss_coef=0.1").log[0]
