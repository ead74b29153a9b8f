"""What is made when training starts, made now on something small: what fails then fails here, in seconds."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sftplug.errors import SftplugError, did_you_mean
from sftplug.model.trained_parameters import trained_parameters
from sftplug.plugin.calls import make_optimizer, multiplier
from sftplug.plugin.calls.optimization import blaming
from sftplug.types.trained_parameters import Horizon

if TYPE_CHECKING:
    import torch
    from torch import nn
    from trl import SFTConfig

    from sftplug.plugin.components import Optimizer, Schedule
    from sftplug.recipe.model import Recipe

PACKAGES = {
    "apollo_torch": "apollo-torch",
    "galore_torch": "galore-torch",
    "lomo_optim": "lomo-optim",
    "optimi": "torch-optimi",
    "azure": "azureml-core",
    "comet": "comet-ml",
    "flyte": "flytekit",
}
"""What an error of transformers, or the name of a tracker, has in it -> the package that pip knows, if another."""
STEPS = 100
"""A schedule is gone through in so many steps where the recipe does not say how many there are."""


def failing_trials(recipe: Recipe, arguments: SFTConfig) -> Iterator[str]:
    """Yield a sentence for the optimizer, the schedule, the trackers and the like that cannot be made here."""
    optimizer: torch.optim.Optimizer | None = None
    what = (
        f"train.optim: {arguments.optim.value}" if recipe.optimizer is None else f"optimizer: {recipe.optimizer.type}"
    )
    given = [pair for pair in (arguments.optim_args or "").replace(" ", "").split(",") if pair]
    wrong = [pair for pair in given if pair.count("=") != 1]
    if wrong:
        yield f"train.optim_args: `{wrong[0]}` is not in the form `name=value`; commas stand between several."
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what an optimizer does on other devices
            optimizer = _stepped(arguments) if recipe.optimizer is None else _chosen(recipe.optimizer, arguments)
    except SftplugError as error:
        yield f"optimizer: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a library says now, it would say when training starts
        yield f"{what} cannot be used here: {_first_line(error)}{_install(str(error))}"
    if recipe.schedule is None:
        yield from _schedule(arguments, optimizer)
    else:
        yield from _multipliers(recipe.schedule, arguments)
    yield from _trackers(arguments)
    yield from _loading(arguments)
    yield from _recomputing(arguments)
    yield from _compiling(arguments)


# --- optimizer --------------------------------------------------------------------------------------------------------


def small_model() -> nn.Module:
    """Return a module with the sorts of parameters that optimizers tell apart: tables, large matrices, vectors.

    bitsandbytes holds the state of parameters in 8 bits from 4,096 numbers on, and pages it from 100,000 on.
    """
    from torch import nn

    return nn.Sequential(nn.Embedding(8, 320), nn.Linear(320, 320), nn.LayerNorm(320))


def _stepped(arguments: SFTConfig) -> torch.optim.Optimizer:
    """Return the optimizer after an update of a small model, on the device that is trained on."""
    import torch
    from transformers import Trainer

    model = small_model().to(arguments.device)
    made, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    given = [options.pop(name) for name in ("params", "model", "optimizer_dict") if name in options]
    if isinstance(made, type) and issubclass(made, torch.optim.Optimizer):
        optimizer: torch.optim.Optimizer = made(given[0] if given else model.parameters(), **options)
    else:  # a factory, which makes an optimizer of several
        optimizer = made()(model, **options)
    model(torch.zeros(2, 8, dtype=torch.long, device=arguments.device)).sum().backward()
    if hasattr(optimizer, "train"):
        optimizer.train()
    optimizer.step()
    return optimizer


def _chosen(component: Optimizer, arguments: SFTConfig) -> torch.optim.Optimizer:
    """Return the optimizer of the recipe after an update of a small model, on the device that is trained on.

    Raises what the component does, with blame.
    """
    import torch

    model = small_model().to(arguments.device)
    optimizer = make_optimizer(component, trained_parameters(model, arguments.weight_decay), arguments.learning_rate)
    model(torch.zeros(2, 8, dtype=torch.long, device=arguments.device)).sum().backward()
    with blaming(component, lambda: optimizer):
        if callable(train := getattr(optimizer, "train", None)):
            train()
        optimizer.step()
    return optimizer


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0] or type(error).__name__
    text = re.sub(r"(?<=pip install )([^\s`'\"]*[<>][^\s`'\"]*)", r"'\1'", text)  # to a shell, a bare `>` writes a file
    return text if text.endswith(".") else f"{text}."


_LACKS = (
    r"install `?((?!https?:)[\w-]+)`?|requires ([\w-]+) to be installed|no module named '(\w+)|import .* from (\w+)|"
    r"instantiate (\w+) .* not installed"
)
"""How transformers says that a package is not there; the group that matches is its name."""


def _install(text: str, name: str = "") -> str:
    """Return the command that installs what `text` says is missing; nothing if it gives one, or if nothing is."""
    found = re.search(_LACKS, text, re.IGNORECASE)
    if found is None or "pip install" in text:
        return ""
    package = name or next(group for group in found.groups() if group)
    known = next((pip for part, pip in PACKAGES.items() if package.startswith(part)), package.replace("_", "-"))
    return f" `pip install {known}` installs it."


# --- schedule ---------------------------------------------------------------------------------------------------------


def _schedule(arguments: SFTConfig, optimizer: torch.optim.Optimizer | None) -> Iterator[str]:
    """Go through the schedule of the learning rate, once."""
    from torch import nn, optim

    optimizer = optimizer or optim.SGD(nn.Linear(2, 2).parameters(), lr=arguments.learning_rate)
    kind = arguments.lr_scheduler_type
    try:
        _go_through(arguments, optimizer)
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        known = _takes(kind)
        takes = f"It takes {', '.join(known)}" if known else "It takes nothing"
        yield (
            f"train.lr_scheduler_type: {kind.value} cannot be made with `train.lr_scheduler_kwargs: "
            f"{arguments.lr_scheduler_kwargs or {}}`: {_first_line(error)} {takes}."
        )


def _multipliers(schedule: Schedule, arguments: SFTConfig) -> Iterator[str]:
    """Ask for the rate of every update of a run, or of some of a long one."""
    steps = arguments.max_steps if arguments.max_steps > 0 else STEPS
    horizon = Horizon(steps, arguments.get_warmup_steps(steps), arguments.learning_rate)
    try:
        rates = [multiplier(schedule, step, horizon) for step in {*range(0, steps, max(steps // STEPS, 1)), steps}]
    except SftplugError as error:
        yield f"schedule: {error}"
    else:
        if not any(rates):
            yield f"schedule: '{schedule.type}' gives every update the rate 0: nothing would be trained."


def _go_through(arguments: SFTConfig, optimizer: torch.optim.Optimizer) -> None:
    from transformers import get_scheduler

    steps = arguments.max_steps if arguments.max_steps > 0 else STEPS
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=arguments.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    by_metric = "metrics" in inspect.signature(scheduler.step).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch counts the optimizer's steps too
        for _ in range(min(steps, STEPS)):
            scheduler.step(1.0) if by_metric else scheduler.step()


def _takes(kind: Any) -> list[str]:
    """Return the names of what a schedule takes beside the numbers of steps."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    if kind.value in ("constant", "constant_with_warmup"):
        return []
    given = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "kwargs")
    return [name for name in inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[kind]).parameters if name not in given]


# --- the rest ---------------------------------------------------------------------------------------------------------


def _trackers(arguments: SFTConfig) -> Iterator[str]:
    from transformers.integrations import get_reporting_integration_callbacks

    for name in arguments.report_to:
        try:
            (tracker,) = get_reporting_integration_callbacks([name])
            _without_end(tracker)()
        except (RuntimeError, ImportError, ValueError) as error:
            yield f"train.report_to: {name} cannot be used here: {_first_line(error)}{_install(str(error), name)}"


def _without_end(tracker: type) -> type:
    """Return the class with nothing to do when it is collected.

    MLflow's and Neptune's end a run then, and fail with a traceback where making them has failed before they had one.
    """
    return type(tracker.__name__, (tracker,), {"__del__": lambda _: None})


def _loading(arguments: SFTConfig) -> Iterator[str]:
    """Make a loader of batches as the trainer does."""
    from torch.utils.data import DataLoader

    names = ("num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context")
    given = {name: getattr(arguments, f"dataloader_{name}", None) for name in names}
    try:
        DataLoader([0], **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        yield f"train.dataloader_…: {_first_line(error)}"


def _recomputing(arguments: SFTConfig) -> Iterator[str]:
    """Recompute an activation with the recipe's options."""
    import torch
    from torch.utils.checkpoint import checkpoint

    options = dict(arguments.gradient_checkpointing_kwargs or {})
    options.pop("selective", None)  # TRL's own
    if not (arguments.gradient_checkpointing and options):
        return
    parameters = inspect.signature(checkpoint).parameters.values()
    known = {"preserve_rng_state", *(item.name for item in parameters if item.default is not item.empty)}
    for name in sorted(options.keys() - known):
        yield f"train.gradient_checkpointing_kwargs: torch takes no `{name}`.{did_you_mean(name, known)}"
    if options.keys() - known:
        return
    try:
        checkpoint(torch.relu, torch.ones(2, requires_grad=True), **{"use_reentrant": False, **options})
    except (ValueError, TypeError) as error:
        yield f"train.gradient_checkpointing_kwargs: {_first_line(error)}"


# --- compilation ------------------------------------------------------------------------------------------------------


def _compiling(arguments: SFTConfig) -> Iterator[str]:
    """Make a compiled module with the recipe's options; nothing is compiled before it is run."""
    if not arguments.torch_compile:
        return
    import torch
    from accelerate.utils import DynamoBackend

    backend = str(arguments.torch_compile_backend)
    known = sorted(item.value.lower() for item in DynamoBackend if item is not DynamoBackend.NO)
    if backend not in known:
        listed = f"{did_you_mean(backend, known)} Known: {', '.join(known)}."
        yield f"train.torch_compile_backend: there is no '{backend}'.{listed}"
        return
    try:
        torch.compile(torch.nn.Linear(2, 2), backend=backend, mode=arguments.torch_compile_mode)
    except RuntimeError as error:  # what torch says of a backend that is not installed, and of a mode
        yield f"train.torch_compile: {_first_line(error)}"
