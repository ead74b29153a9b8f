"""What is known to be wrong before the first row is read: preparing many rows takes long, loading weights longer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sftplug.errors import SftplugError
from sftplug.launch import launch_problems
from sftplug.models import check_files, check_model
from sftplug.quiet import quiet_libraries
from sftplug.training import training_arguments

if TYPE_CHECKING:
    from trl import SFTConfig

    from sftplug.recipe import Recipe

AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "logging_steps": 0,
    "save_steps": 0,
    "eval_steps": 0,
    "learning_rate": 0,
    "weight_decay": 0,
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
    try:
        problems += _problems_of_trainer(training_arguments(recipe))
    except (ValueError, ImportError) as error:  # TRL's own last word on its options
        problems.append(f"train: {error}")
    try:
        problems += [f"adapter: {text}" for text in check_model(recipe)]
        check_files(recipe)
    except SftplugError as error:
        problems.append(str(error))
    return problems


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


def _problems_of_trainer(arguments: SFTConfig) -> Iterator[str]:
    """Yield what the trainer would say after rows are prepared and weights are loaded."""
    from transformers import Trainer
    from transformers.integrations import get_reporting_integration_callbacks

    if arguments.fp16 and arguments.use_cpu:
        yield "train.fp16: CPUs do not train in fp16. Leave it out, or set `train.bf16`."
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ImportError as error:
        yield f"train.optim: {error}"
    except ValueError:
        return  # some optimizers look at the model, which is not there yet
    try:
        for tracker in get_reporting_integration_callbacks(arguments.report_to):
            tracker()
    except (RuntimeError, ImportError, ValueError) as error:
        yield f"train.report_to: {error}"
