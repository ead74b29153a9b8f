"""What is known to be wrong before the first row is read: preparing many rows takes long, loading weights longer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sftplug.errors import SftplugError
from sftplug.launch import launch_problems
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.continued import problems_of_adapter
from sftplug.model.loading import check_files, check_model, check_names, model_config, skeleton
from sftplug.model.own_adapter import problems_of_own
from sftplug.model.patching import problems_of_patches
from sftplug.model.structure import router_loss_is_missing
from sftplug.model.teacher import check_teacher
from sftplug.plugin.calls import config_problems, merge_problems, needs_merged, peft_config, saves_itself
from sftplug.training.arguments import training_arguments
from sftplug.training.preflight.best import problems_of_best
from sftplug.training.preflight.ignored_options import ignored_options
from sftplug.training.preflight.saving import unsavable
from sftplug.training.preflight.trials import failing_trials
from sftplug.training.preflight.watching import failing_callbacks
from sftplug.training.usual_head import problems_of_head

if TYPE_CHECKING:
    from trl import SFTConfig

    from sftplug.recipe.model import Recipe

AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "logging_steps": 0,
    "save_steps": 0,
    "eval_steps": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "neftune_noise_alpha": 0,
    "save_total_limit": 0,
    "eval_delay": 0,
    "pad_to_multiple_of": 1,
    "dataloader_num_workers": 0,
    "ddp_timeout": 1,
}
"""Options of the trainer that the libraries take below these values, and fail with later, or never end."""


def problems_before_rows(recipe: Recipe) -> list[str]:
    """Return a sentence for everything in `recipe` that cannot work whatever the rows are."""
    quiet_libraries()
    problems = [f"train.{name}: must be at least {least}, not {value}." for name, least, value in _too_small(recipe)]
    problems += _problems_of_numbers(recipe.train)
    problems += launch_problems(recipe)
    if recipe.evaluation.metrics and not (recipe.data.eval or recipe.data.eval_fraction):
        problems.append("evaluation.metrics: no rows are held out to answer: set `data.eval_fraction` or `data.eval`.")
    problems += _problems_of_trainer(recipe)
    problems += failing_callbacks(recipe)
    try:
        # What no adapter can be made of can neither be merged nor saved, and that is no second problem.
        unfit = [f"adapter: {text}" for text in check_model(recipe) or problems_of_own(recipe)]
        problems += unfit or _unmergeable(recipe)
        problems += problems_of_patches(recipe)
        check_files(recipe)
        check_names(recipe)
        if not unfit:
            # Asked of an adapter that has seen the model: which modules it adapts is known by now.
            problems += [*problems_of_adapter(recipe), *unsavable(recipe)]
            problems += _unexportable(recipe)
        problems += _auxiliary_loss(recipe)
        check_teacher(recipe)
        problems += problems_of_head(recipe)
    except SftplugError as error:
        problems.append(str(error))
    return problems


def _unmergeable(recipe: Recipe) -> Iterator[str]:
    """Yield why an exporter that is to follow the run will get no merged model."""
    asking = next((exporter for exporter in recipe.export if needs_merged(exporter)), None)
    adapter = recipe.adapter
    if asking is not None and (saves_itself(adapter) or peft_config(adapter) is not None):
        for text in merge_problems(adapter, recipe.quantization, in_place=False):
            yield f"export: {asking.type} needs a merged model: {text}"


def _unexportable(recipe: Recipe) -> Iterator[str]:
    """Yield why the model cannot be written in a form that is to follow the run."""
    for exporter in recipe.export:
        for text in config_problems(exporter, model_config(recipe)):
            yield f"export: {exporter.type}: {text}"


def _too_small(recipe: Recipe) -> Iterator[tuple[str, int, float]]:
    for name, least in AT_LEAST.items():
        value = recipe.train.get(name)
        if isinstance(value, int | float) and value < least:
            yield name, least, value


def _problems_of_numbers(train: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the trainer would take otherwise than it is meant, or fail with when the weights are loaded."""
    steps, epochs, seed = train.get("max_steps", -1), train.get("num_train_epochs", 3), train.get("seed", 42)
    if steps == 0 or steps < -1:
        yield f"train.max_steps: must be at least 1, or -1 to go by `train.num_train_epochs`, not {steps}."
    if epochs <= 0 and steps <= 0:
        yield f"train.num_train_epochs: must be more than 0, not {epochs}: nothing would be trained."
    if seed >= 2**32:  # one below 0 draws no rows either
        yield f"train.seed: must be at most 4294967295, not {seed}."


def _problems_of_trainer(recipe: Recipe) -> list[str]:
    """Return what the trainer would say after rows are prepared and weights are loaded, or would not say at all."""
    try:
        arguments = training_arguments(recipe)
    except (ValueError, ImportError) as error:  # TRL's own last word on its options
        return [*_mismatched(recipe.train), f"train: {error}"][:1]
    problems = [*ignored_options(recipe, arguments), *problems_of_best(recipe, arguments)]
    problems += _forgetful(arguments) if recipe.optimizer is None else []
    if arguments.fp16 and arguments.use_cpu:
        problems.append("train.fp16: CPUs do not train in fp16. Leave it out, or set `train.bf16`.")
    return [*problems, *failing_trials(recipe, arguments)]


_FORGETFUL = ("layerwise", "adalomo")
"""Optimizers, by what stands in their name, whose state no checkpoint holds: transformers makes one for each parameter
and hides it behind an empty one; AdaLomo keeps its averages in an attribute. Others are found out after one step."""


def _forgetful(arguments: SFTConfig) -> Iterator[str]:
    from sftplug.training.callback_state import is_resumable

    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    if any(word in optimizer for word in _FORGETFUL) and is_resumable(arguments):
        yield (
            f"train.optim: {optimizer} keeps its state where no checkpoint looks, so no run could resume from one. "
            "Choose another, or `train.save_strategy: no` and no other `train.save_*`."
        )


def _mismatched(train: Mapping[str, Any]) -> Iterator[str]:
    """Say in words of the recipe what TRL says in those of its command line."""
    evaluated = train.get("eval_strategy", "epoch")
    saved = train.get("save_strategy", "epoch")
    if not train.get("load_best_model_at_end") or saved == "best":
        return
    if saved != evaluated:
        every = f" and `train.save_steps: {train['eval_steps']}`" if train.get("eval_steps") else ""
        remedy = f"Set `train.save_strategy: {evaluated}`{every if evaluated == 'steps' else ''}"
        yield (
            f"train.load_best_model_at_end: evaluations are made by `{evaluated}` and checkpoints saved by `{saved}`, "
            f"so "
            f"the best one may not be there. {remedy}, or `train.save_strategy: best`."
        )


def _auxiliary_loss(recipe: Recipe) -> Iterator[str]:
    """TRL refuses the weight of a loss that is not there once weights are loaded, or the first step fails."""
    if recipe.train.get("router_aux_loss_coef") and (why := router_loss_is_missing(skeleton(recipe))):
        yield f"train.router_aux_loss_coef: {why}. Leave it out."
