"""What cannot work is said before rows are read and weights are loaded, in words that help."""

import ast
import json
import re

import pytest
from typer.testing import CliRunner

from sftplug import LibrarySource, ModelError
from sftplug.model.loading import check_positions
from sftplug.recipe import load_recipe
from sftplug.training.preflight import problems_before_rows


@pytest.fixture
def problems(recipe_file):
    def find(*overrides):
        return "\n".join(problems_before_rows(load_recipe(str(recipe_file()), overrides).recipe))

    return find


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.per_device_train_batch_size=0", "train.per_device_train_batch_size: must be at least 1, not 0."),
        ("train.gradient_accumulation_steps=0", "train.gradient_accumulation_steps: must be at least 1, not 0."),
        ("train.save_total_limit=-1", "train.save_total_limit: must be at least 0, not -1."),
        ("train.max_grad_norm=-1.0", "train.max_grad_norm: must be at least 0, not -1.0."),
        ("train.max_steps=0", "train.max_steps: must be at least 1, or -1 to go by `train.num_train_epochs`, not 0."),
        ("train.seed=4294967296", "train.seed: must be at most 4294967295, not 4294967296."),
        (
            "train.optim=galore_adamw",
            "train.optim: galore_adamw cannot be used here: You need to install `galore_torch`",
        ),
        (
            "train.report_to=wandb",
            "train.report_to: wandb cannot be used here: WandbCallback requires wandb to be installed.",
        ),
        ("train.report_to=dvclive", "`pip install dvclive`"),
        ("train.report_to=comet_ml", "`pip install 'comet-ml>=3"),
        ("train.report_to=mlflow", "MLflowCallback requires mlflow to be installed. Run `pip install mlflow`."),
        (
            "train.lr_scheduler_type=cosine_with_min_lr",
            "`lr_scheduler_kwargs`. It takes num_cycles, min_lr",
        ),
        ("train.optim=adalomo", "train.optim: adalomo keeps its state where no checkpoint looks"),
        (
            "train.optim=apollo_adamw_layerwise",
            "Choose another, or `train.save_strategy: no` and no other `train.save_*`.",
        ),
        ("model.attn_implementation=sdap", "model.attn_implementation: sdap: Specified"),
    ],
)
def test_what_the_trainer_would_say_late_is_said_early(problems, override, expected):
    assert expected in problems(override)


def test_an_optimizer_that_forgets_is_none_of_our_business_where_nothing_goes_on(problems):
    assert "no checkpoint looks" not in problems("train.optim=adalomo", "train.save_strategy='no'")


def test_epochs_in_which_nothing_is_trained_are_refused(problems):
    expected = "train.num_train_epochs: must be more than 0, not 0: nothing would be trained."
    assert expected in problems("train.max_steps=-1", "train.num_train_epochs=0")


def test_a_good_recipe_has_no_problem(problems):
    assert problems() == ""
    assert problems("train.save_total_limit=0") == ""  # all of them are kept


def test_a_row_longer_than_the_model_s_positions_is_refused_and_names_the_length(recipe_file, prepared):
    recipe = load_recipe(str(recipe_file())).recipe
    longest = prepared(recipe_file()).longest
    assert 20 < longest < 256
    check_positions(recipe, longest)
    with pytest.raises(ModelError, match=r"the longest row has 8,193 tokens, .* made for 8,192 .*max_length: 8192`"):
        check_positions(recipe, 8193)


def test_the_longest_document_of_packed_rows_counts(recipe_file, prepared):
    alone = prepared(recipe_file()).longest
    assert prepared(recipe_file(), "data.packing=rows").longest == alone


def test_a_folder_written_without_its_dot_is_explained(recipe_file, monkeypatch, tmp_path):
    from sftplug.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model").mkdir()
    result = CliRunner().invoke(app, ["check", str(recipe_file()), "model=my_model"])
    assert result.exit_code != 0
    text = str(result.exception)
    assert "'my_model' is looked for on the Hub. A folder is written `./my_model`; there is one of that name" in text


def test_a_held_out_fraction_that_draws_no_row_says_so(recipe_file, prepared):
    from sftplug import DataError

    with pytest.raises(DataError, match=r"split 'eval' is left: `data\.eval_fraction: 1e-06` of the rows drew none"):
        prepared(recipe_file(), "data.eval_fraction=0.000001")


# --- the trainer's options, tried -------------------------------------------------------------------------------------

_SOURCE = LibrarySource("transformers/training_args.py", "transformers/trainer_utils.py")
OPTIMIZERS = [item.value.value for item in _SOURCE.class_node("OptimizerNames").body if isinstance(item, ast.Assign)]
SCHEDULES = [item.value.value for item in _SOURCE.class_node("SchedulerType").body if isinstance(item, ast.Assign)]


def test_every_optimizer_is_made_or_says_what_it_needs(problems):
    assert len(OPTIMIZERS) > 30
    here = {name: problems(f"train.optim={name}") for name in OPTIMIZERS}
    assert [name for name in ("adamw_torch", "adafactor", "sgd", "lion_8bit", "paged_adamw_8bit") if here[name]] == []
    for name, text in here.items():
        if text:
            assert f"train.optim: {name} cannot be used here: " in text, text
            assert re.search(r"pip install|https://|on CPU|CUDA", text), text


NEEDED = {
    "cosine_with_min_lr": "{min_lr: 1e-6}",
    "cosine_warmup_with_min_lr": "{min_lr: 1e-6}",
    "warmup_stable_decay": "{num_decay_steps: 2}",
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_gone_through_and_says_what_it_lacks(problems, name):
    options = [f"train.lr_scheduler_type={name}", "train.warmup_steps=0", "data.eval_fraction=0.2"]
    wanting = problems(*options)
    if name in NEEDED:
        assert f"train.lr_scheduler_type: {name} cannot be made with `train.lr_scheduler_kwargs: {{}}`: " in wanting
        assert NEEDED[name].partition(":")[0].strip("{") in wanting
        options.append(f"train.lr_scheduler_kwargs={NEEDED[name]}")
    assert problems(*options) == ""
    refused = problems(*options, "train.lr_scheduler_kwargs={no_such: 1}")
    assert re.search("takes none|no_such", refused)
    assert "Traceback" not in refused


UNHEEDED = {
    "constant and warmup": (
        ["lr_scheduler_type=constant", "warmup_steps=3"],
        "train.warmup_steps: `train.lr_scheduler_type: constant` knows no warmup. "
        "Set `train.lr_scheduler_type: constant_with_warmup`",
        ["lr_scheduler_type=constant_with_warmup", "warmup_steps=3"],
    ),
    "steps between evaluations": (
        ["eval_steps=3"], "train.eval_steps: is used only with", ["eval_strategy=steps", "eval_steps=3"],
    ),
    "steps between checkpoints": (
        ["save_steps=3"], "is used only with `train.save_strategy: steps`", ["save_strategy=steps", "save_steps=3"],
    ),
    "steps between logs": (["logging_strategy=epoch"], "train.logging_steps: is used only with", []),
    "how many of no checkpoints": (
        ["save_strategy='no'", "save_total_limit=2"], "train.save_total_limit: no checkpoint is saved", [],
    ),
    "betas of no Adam": (["optim=sgd", "adam_beta1=0.8"], "train.adam_beta1: the optimizer sgd does not use it.", []),
    "optim_args, unknown": (
        ["optim=sgd", "optim_args=momentun=0.9"],
        "train.optim_args: the optimizer sgd takes no `momentun`", ["optim=sgd", "optim_args=momentum=0.9"],
    ),
    "optim_args, malformed": (["optim_args=fast"], "`fast` is not in the form `name=value`", []),
    "targets": (["optim_target_modules=all-linear"], "is for the optimizers of GaLore and APOLLO", []),
    "how nothing is recomputed": (
        ["gradient_checkpointing_kwargs={use_reentrant: true}"], "nothing is recomputed here",
        ["gradient_checkpointing_kwargs={use_reentrant: true}", "gradient_checkpointing=true"],
    ),
    "how is it recomputed": (
        ["gradient_checkpointing=true", "gradient_checkpointing_kwargs={reentrant: true}"],
        "train.gradient_checkpointing_kwargs: torch takes no `reentrant`. Did you mean 'use_reentrant'?",
        ["gradient_checkpointing=true", "gradient_checkpointing_kwargs={use_reentrant: true}"],
    ),
    "compiler": (
        ["torch_compile_backend=inductr"], "there is no 'inductr'. Did you mean 'inductor'?",
        ["torch_compile_backend=inductor"],
    ),
    "how it compiles": (
        ["torch_compile_mode=fast"], "train.torch_compile: Unrecognized mode=fast, should be one of: default, ",
        ["torch_compile_mode=default"],
    ),
    "persistent workers": (
        ["dataloader_persistent_workers=true"], "train.dataloader_…: persistent_workers option needs",
        ["dataloader_persistent_workers=true", "dataloader_num_workers=1"],
    ),
    "how workers are started": (
        ["dataloader_num_workers=1", "dataloader_multiprocessing_context=thread"],
        "train.dataloader_…: multiprocessing_context",
        ["dataloader_num_workers=1", "dataloader_multiprocessing_context=fork"],
    ),
    "pinned memory": (["dataloader_pin_memory=true"], "is for accelerators, and this run is on a CPU", []),
    "cache": (["torch_empty_cache_steps=4"], "is for accelerators, and this run is on a CPU", []),
    "offloading": (["activation_offloading=true"], "is for accelerators, and this run is on a CPU", []),
    "timeout": (["ddp_timeout=4"], "is for accelerators, and this run is on a CPU", []),
    "tf32": (["tf32=true"], "train: --tf32 requires Ampere", []),
    "fp16": (["fp16=true"], "train.fp16: CPUs do not train in fp16.", []),
    "project": (["project=mine"], "is used only with `train.report_to: trackio`", []),
    "backend": (["ddp_backend=gloo"], "there is one process, which talks to no other.", []),
    "tpu": (["debug=tpu_metrics_debug"], "tpu_metrics_debug is for TPUs", ["debug=underflow_overflow"]),
    "fsdp_config": (["fsdp_config={version: 2}"], "is used only with `train.fsdp`", []),
    "no experts": (["router_aux_loss_coef=0.1"], "the model is not a mixture of experts", []),
    "best, not saved": (
        ["load_best_model_at_end=true", "eval_strategy=steps", "eval_steps=2"],
        "Set `train.save_strategy: steps` and `train.save_steps: 2`, or `train.save_strategy: best`",
        ["load_best_model_at_end=true", "eval_strategy=steps", "eval_steps=2", "save_strategy=best"],
    ),
    "best by what nobody measures": (
        ["load_best_model_at_end=true", "metric_for_best_model=lose"],
        "no evaluation measures `lose`. Did you mean 'loss'?",
        ["load_best_model_at_end=true", "metric_for_best_model=loss"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script:DeprecationWarning"
)  # torch's own, where it imports its compiler
@pytest.mark.parametrize("name", UNHEEDED)
def test_an_option_that_nothing_heeds_is_a_problem(problems, name):
    wrong, expected, right = UNHEEDED[name]
    given = ["data.eval_fraction=0.2"]
    assert expected in problems(*given, *(f"train.{option}" for option in wrong))
    assert problems(*given, *(f"train.{option}" for option in right)) == ""


def test_a_metric_of_replies_is_no_metric_of_evaluations(recipe_file):
    def found(callbacks, *overrides):
        file = recipe_file(callbacks=callbacks, evaluation={"metrics": ["exact_match"]})
        loaded = load_recipe(str(file), ["data.eval_fraction=0.2", *overrides])
        return "\n".join(problems_before_rows(loaded.recipe))

    stopping = {"type": "early_stopping", "metric": "exact_match", "greater_is_better": True}
    wrong = found([stopping])
    assert "callbacks[0]: `exact_match` is measured of replies, when training is over, and not in evaluations." in wrong
    assert found([{**stopping, "metric": "loss", "greater_is_better": None}]) == ""
    by_part = [{**stopping, "metric": "loss/end_of_turn", "greater_is_better": None}, "loss_by"]
    assert found(by_part) == ""
    assert "Did you mean 'loss/end_of_turn'?" in found([{**by_part[0], "metric": "loss/end_of_trun"}, "loss_by"])
    plain = found([], "train.metric_for_best_model=eval_exact_match", "train.load_best_model_at_end=true")
    assert "train.metric_for_best_model: `exact_match` is measured of replies" in plain


# --- what is written at the end, written at the beginning -------------------------------------------------------------

SAMPLING = {"do_sample": False, "temperature": 0.7, "top_k": 20, "early_stopping": True, "eos_token_id": 3}


@pytest.fixture
def sampling_base(recipe_file):
    """Return a recipe whose base has options of sampling without sampling; and the folder of the base."""
    import shutil

    from sftplug.model.loading import base_model_path

    built = base_model_path(load_recipe(str(recipe_file())).recipe)
    file = recipe_file(model="./base")
    shutil.copytree(built, file.parent / "base")
    (file.parent / "base" / "generation_config.json").write_text(json.dumps(SAMPLING))
    return file


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_base_with_idle_options_of_sampling_is_trained_saved_and_merged(sampling_base, command, tmp_path, adapter):
    checked = command("check", sampling_base, f"adapter={adapter}")
    assert checked.exit_code == 0, checked.output
    told = "its generation_config.json says early_stopping: True, temperature: 0.7, top_k: 20, which has no effect"
    assert told in " ".join(checked.output.split())
    trained = command("train", sampling_base, f"adapter={adapter}", "train.max_steps=2")
    assert trained.exit_code == 0, trained.exception
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert saved["do_sample"] is False
    assert not saved.keys() & {"temperature", "top_k", "early_stopping"}
    if adapter == "lora":
        merged = command("merge", tmp_path / "out", "--output", tmp_path / "merged")
        assert merged.exit_code == 0, merged.exception


def test_what_cannot_be_saved_is_said_before_training(sampling_base):
    base = sampling_base.parent / "base"
    (base / "generation_config.json").write_text(json.dumps({"suppress_tokens": [1], "forced_eos_token_id": 1}))
    (problem,) = problems_before_rows(load_recipe(str(sampling_base)).recipe)
    assert problem.startswith("model: its generation")
    assert "`forced_eos_token_id`" in problem


def test_an_adapter_whose_configuration_cannot_be_written_is_said_before_training(recipe_file, tmp_path):
    (tmp_path / "odd.py").write_text(
        "import peft, sftplug\n"
        "class Odd(sftplug.Adapter):\n"
        '    """A LoRA with something that JSON cannot hold."""\n'
        '    type: str = "odd"\n'
        "    def peft_config(self):\n"
        '        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])\n'
        "        config.layers_pattern = object()\n"
        "        return config\n"
        "@sftplug.hookimpl\n"
        "def sftplug_adapters():\n"
        "    return [Odd]\n"
    )
    loaded = load_recipe(str(recipe_file(plugins=["./odd.py"], adapter="odd", quantization="fp32")))
    (problem,) = problems_before_rows(loaded.recipe)
    assert problem.startswith("model: its adapter's configuration cannot be saved with the result: TypeError: ")
