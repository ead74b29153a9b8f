"""What watches over the training loop: it is recorded, can be stopped and resumed at any step, and does no harm."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from sftplug.errors import PluginError, PluginFault, TrainingError
from sftplug.run.checkpoints import read_progress
from sftplug.run.longer import planned
from sftplug.training.callback_state import Carried, is_resumable, refuse_lossy, refuse_unreadable, remembered
from sftplug.training.chosen_optimizer import reschedule
from sftplug.training.object_state import Snapshot
from sftplug.training.signals import SignalHandler, interrupted
from sftplug.util.arguments import argument

if TYPE_CHECKING:
    from sftplug.run import Checkpoint, RunSession

_SUMMARY = "train_runtime"
"""A field of the trainer's own summary, which knows of one attempt only; ``run.json`` has that of all."""


class GradientCheck(TrainerCallback):  # type: ignore[misc]
    """Stops a run that would learn nothing: a parameter that is to be trained and gets no gradient."""

    def __init__(self) -> None:
        self._idle: set[str] | None = None
        self._left = 1

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the first update every trainable parameter must have got a gradient; with module dropout, in time."""
        if not self._left or args.deepspeed_plugin is not None:  # DeepSpeed keeps gradients to itself
            return
        model = kwargs["model"]
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        # Idle is what got no gradient in any step so far: of those known to be idle, a step keeps the ones that are so
        # again.
        idle = {name for name, parameter in trained if parameter.grad is None}
        self._left = _patience(model) if self._idle is None else self._left
        self._idle = idle if self._idle is None else self._idle & idle
        self._left = self._left - 1 if self._idle else 0
        if self._idle and not self._left:
            adapted = hasattr(model, "peft_config")
            how = "leave such modules out of the adapter" if adapted else _FREEZE
            raise TrainingError(
                f"{len(self._idle)} parameters are to be trained but get no gradient, such as {min(self._idle)}. "
                f"The model's forward pass does not use them on these rows: {how}."
            )


def _patience(model: Any) -> int:
    """Return the steps after which a module that is used had its turn, but for one chance in a million.

    PEFT's `module_dropout` (of LoHa, LoKr) lets each module sit out a step with that probability: with 0.5, 20 steps.
    """
    configs = getattr(model, "peft_config", {}).values()
    dropout = max((getattr(config, "module_dropout", 0.0) or 0.0 for config in configs), default=0.0)
    return ceil(log(1e-6) / log(dropout)) if 0 < dropout < 1 else 1


_FREEZE = "train the others, by patterns of their names, with the adapter `freeze`"


class Stopwatch:
    """Seconds in the training loop, over all attempts."""

    def __init__(self, before: float = 0.0) -> None:
        """Begin with the seconds of earlier attempts."""
        self._before = before
        self._started: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (time.monotonic() - self._started if self._started is not None else 0.0)


class MetricsWriter(TrainerCallback):  # type: ignore[misc]
    """Writes what the trainer measures, as it comes, and with every checkpoint how far the run is."""

    def __init__(self, session: RunSession, clock: Stopwatch, tokens: Callable[[], int]) -> None:
        """`tokens` returns how many went through the model so far."""
        self._session = session
        self._clock = clock
        self._tokens = tokens

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock: what comes before is not training. Write how many steps there will be."""
        self._clock.start()
        self._note(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line: step, time and memory, and what was measured."""
        if logs and _SUMMARY not in logs and state.is_world_process_zero:
            measured = {name: value for name, value in logs.items() if isinstance(value, int | float | str)}
            seconds = round(self._clock.seconds, 3)
            place = {"step": state.global_step, "seconds": seconds, "peak_bytes": peak_bytes()}
            self._session.directory.add_metrics({**place, **measured})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write how far the checkpoint is, now that it is whole."""
        self._note(state)

    def _note(self, state: TrainerState) -> None:
        self._session.go(state.global_step, state.max_steps, self._clock.seconds, self._tokens())


def peak_bytes() -> int | None:
    """Return the most memory that was in use: of the accelerator if there is one, else of the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


class Moments(TrainerCallback):  # type: ignore[misc]
    """Tells the plugins in use of evaluations and checkpoints, in the main process."""

    def __init__(self, tell: Callable[..., None]) -> None:
        """`tell` takes the name of a hook, and its arguments."""
        self._tell = tell

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Tell what was measured."""
        numbers = {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
        self._say(state, "sftplug_evaluation_finished", metrics=numbers)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell where the checkpoint is, now that it is whole."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._say(state, "sftplug_checkpoint_saved", checkpoint=folder)

    def _say(self, state: TrainerState, hook: str, **arguments: Any) -> None:
        """Tell in the midst of training, where what a plugin does wrong is a failure of the run."""
        if not state.is_world_process_zero:
            return
        try:
            self._tell(hook, step=state.global_step, **arguments)
        except PluginError as error:
            raise PluginFault(str(error)) from error


class OnTrainBegin(TrainerCallback):  # type: ignore[misc]
    """Looks at what is about to be trained, when all is in place and before the first step."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look."""
        self._look()


class AdaLoraCallback(TrainerCallback):  # type: ignore[misc]
    """Lets an adapter share out its ranks anew after each update of the weights, while their gradients are there.

    For the adapter types of PEFT that ask for it with a method ``update_and_allocate``, such as AdaLoRA (Zhang et al.
    2023, arXiv:2303.10512); nobody else calls it. Steps are counted from 1, as in the paper, so that AdaLoRA's last one
    leaves the ranks that are saved.
    """

    def __init__(self, name: str, tuner: Any) -> None:
        self._name = name
        self._tuner = tuner

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a schedule for another number of steps."""
        meant = [getattr(config, "total_step", None) for config in self._tuner.peft_config.values()]
        wrong = next((steps for steps in meant if steps not in (None, state.max_steps)), None)
        if wrong is not None and state.global_step:
            raise TrainingError(
                f"adapter {self._name} shares out its ranks over {wrong} steps, which the run has made: it cannot be "
                f"made longer. Choose another {argument('--output')}, and set `adapter.total_step: {state.max_steps}`."
            )
        if wrong is not None:
            raise TrainingError(
                f"adapter {self._name}: `total_step` is {wrong}, and the run takes {state.max_steps} steps: the ranks "
                f"would not be those that `target_r` asks for. Set `adapter.total_step: {state.max_steps}`."
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Share out."""
        self._tuner.update_and_allocate(state.global_step + 1)


def allocating(model: Any) -> Any | None:
    """Return the part of `model`, adapter and all, that shares out its ranks; None if nothing does."""
    tuner: Any = getattr(model, "base_model", None)
    if not callable(getattr(tuner, "update_and_allocate", None)):
        return None
    switched_on = [getattr(config, "use_asa", True) for config in tuner.peft_config.values()]  # an option of AdaMSS
    return tuner if any(switched_on) else None


class StateKeeper(TrainerCallback):  # type: ignore[misc]
    """Sees to it that checkpoints hold all that a run is resumed with, and finds out early where they cannot."""

    def __init__(self, carried: Sequence[Carried], checkpoint: Checkpoint | None) -> None:
        self._carried = carried
        self._checkpoint = checkpoint
        self._optimizer: Snapshot | None = None
        self._looked = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note how all begins, and give back what was remembered; callbacks have just begun themselves."""
        for carried in self._carried:
            carried.begin()
            if self._checkpoint is not None:
                carried.read(self._checkpoint.path, args.process_index)
        if is_resumable(args):
            self._optimizer = remembered(kwargs["optimizer"])
            refuse_unreadable("the schedule of the learning rate", kwargs["lr_scheduler"].state_dict())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Once, after the first step: the optimizer and the callbacks have by now what they will keep."""
        if not self._looked and self._optimizer is not None:
            refuse_lossy(kwargs["optimizer"], self._optimizer)
            for carried in self._carried:
                carried.refuse_lossy()
        self._looked = True


class RestoreCounters(TrainerCallback):  # type: ignore[misc]
    """Gives the trainer back what it had counted when the checkpoint was saved."""

    def __init__(
        self, go_on: Callable[[Mapping[str, Any]], None], checkpoint: Checkpoint, tell: Callable[[str], None]
    ) -> None:
        """`go_on` takes what this process had counted; `tell` a sentence on the rate of a run that is longer now."""
        self._go_on = go_on
        self._checkpoint = checkpoint
        self._tell = tell

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the counts, which the trainer has just set to zero."""
        progress = read_progress(self._checkpoint.path, args.process_index)
        self._go_on(progress)
        if (then := planned(self._checkpoint.path)) == state.max_steps:
            # Whoever stopped the run there may not say so again.
            control.should_training_stop |= progress["stopped"]
        elif (rates := reschedule(kwargs["lr_scheduler"])) is not None:
            self._tell(
                f"goes on from update {state.global_step:,} of {state.max_steps:,}, where {then:,} were planned: "
                f"learning rate {rates[1]:g} from here on, and not {rates[0]:g}"
            )


class CheckpointSchedule(TrainerCallback):  # type: ignore[misc]
    """Decides when a checkpoint is saved, so that a run resumed from it does all that the other would have done.

    A step may be followed by the end of its epoch, with its own evaluation and log: a checkpoint between the two would
    skip them. So a checkpoint that is due after the last step of an epoch is saved when the epoch has ended.
    """

    def __init__(self, stop: SignalHandler) -> None:
        self._stop = stop
        self._due = False
        self._epoch_ended = False
        self._over = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note whether the checkpoint that the run resumes from is its last: then nothing is left to do."""
        self._over = 0 < state.max_steps <= state.global_step

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take no step after the last one, and none if the run had been stopped early at the checkpoint."""
        self._over |= control.should_training_stop
        self._epoch_ended = False
        control.should_training_stop |= self._over

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save when a signal asked for it; wait for the end of the epoch if that comes next. Log the last step."""
        if args.logging_strategy == IntervalStrategy.STEPS and state.global_step >= state.max_steps:
            control.should_log = True
        control.should_save |= self._stop.agree()
        if is_last_of_epoch(state):
            self._due, control.should_save = control.should_save, False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save what has waited."""
        self._epoch_ended = True
        control.should_save |= self._stop.agree() or self._due
        self._due = False
        if self._over:
            control.should_save = control.should_evaluate = control.should_log = False

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look whether what an evaluation prints is read."""
        self._stop.look()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A signal that came during an evaluation is met after it."""
        if self._stop.agree() and (self._epoch_ended or not is_last_of_epoch(state)):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the run where a signal asked for it, be it while the checkpoint was written: it is whole now."""
        if self._stop.agree() and self._stop.signal is not None:
            raise interrupted(self._stop.signal, args, state.global_step)


def is_last_of_epoch(state: TrainerState) -> bool:
    """Whether the epoch ends after this step: all its rows were seen, or the run's last step is done."""
    return bool(state.global_step >= state.max_steps or (state.epoch and float(state.epoch).is_integer()))
