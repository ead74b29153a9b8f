"""Supervised fine-tuning, from a recipe and prepared rows to a saved model; read `train` from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sftplug.errors import ModelError, PluginError, TrainingError
from sftplug.launch import (
    StrategyCheck,
    find_build_tools,
    refuse_other_processes,
    sharding,
    split_beneath_adapter,
    write_config,
)
from sftplug.libraries.logging import quiet_libraries
from sftplug.model.architectures import auto_class
from sftplug.model.continued import continue_adapter, continued
from sftplug.model.loading import base_model_path, check_positions, load_fitting_base, new_ids
from sftplug.model.new_tokens import refuse_untrained, train_new_embeddings
from sftplug.model.own_adapter import save_adapter
from sftplug.model.packing_check import carries_state, check_isolation
from sftplug.model.parameters import count_parameters
from sftplug.model.patching import patches_in_force
from sftplug.model.reach import kinds_of
from sftplug.model.structure import router_loss_is_missing
from sftplug.model.teacher import check_teacher_positions, load_teacher
from sftplug.plugin.calls import (
    is_nll,
    label,
    loss_metrics,
    peft_config,
    saves_itself,
    trainer_callback,
)
from sftplug.recipe.defaults import suits
from sftplug.run import RunSession, open_session
from sftplug.run.card import write_card
from sftplug.run.checkpoints import Retained
from sftplug.run.failure import explaining
from sftplug.run.files import noting
from sftplug.training.arguments import layout, training_arguments
from sftplug.training.moved_weights import WeightSample
from sftplug.training.own_loss import heed_replaced_loss
from sftplug.training.patched import told
from sftplug.training.readback import Before, is_whole_here, read_back, refuse_other_start, try_to_save
from sftplug.training.saving import save, save_beside
from sftplug.training.usual_head import first_head
from sftplug.types.loss_groups import LossGroups
from sftplug.types.result import ParameterCounts, RunResult
from sftplug.util.processes import is_launched, is_main

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, TrainerCallback

    from sftplug.data.prepare import Prepared
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.recipe.model import Recipe
    from sftplug.training.trainer import SftplugTrainer


def train(loaded: LoadedRecipe, prepared: Prepared, session: RunSession | None = None) -> RunResult:
    """Train as the recipe says, and save the result to its output folder; resume a run that is unfinished there.

    `session` holds the folder; without one it is begun here. Raises what the libraries raise, TrainingError,
    Interrupted and RunError, after plugins have been told with ``sftplug_run_failed``.
    """
    if session is None:
        with open_session(loaded) as session:
            return train(loaded, prepared, session)
    loaded = session.loaded  # what it leaves open as the run was begun
    refuse_other_processes(loaded.recipe, session.checkpoint)
    quiet_libraries()
    session.record_rows(prepared)
    check_positions(loaded.recipe, prepared.longest)
    check_teacher_positions(loaded.recipe, prepared.longest)
    if loaded.recipe.launch is not None and session.writes:
        write_config(loaded.recipe, loaded.recipe.launch, session.directory.path)
    with patches_in_force(loaded.recipe):
        return _train(loaded, prepared, session)


def _train(loaded: LoadedRecipe, prepared: Prepared, session: RunSession) -> RunResult:
    """Train, with the patches of the recipe in force."""
    from sftplug.training.heads import settle_head

    # The base model, its weights in the numbers that the quantization says; the adapter says what is trained.
    model = load_fitting_base(loaded.recipe, **sharding(loaded.recipe))
    before = Before(loaded.recipe, model)
    before.prepare(model)
    kinds_of(model)  # while nothing of the adapter is in it
    trainer = make_trainer(loaded.recipe, model, prepared, before)
    try_what_comes_later(loaded.recipe, trainer, before, prepared)
    session.state.patches = told(loaded.recipe, before.apart)
    session.state.auto_class = auto_class(model.config).__name__
    settle_head(loaded, trainer, session)
    size = count_parameters(trainer.model)  # while it is whole: several processes may split it
    if layout(loaded.recipe) in ("rows", "flat"):
        check_isolation(trainer.model, marked=trainer.data_collator.marked)
    split_beneath_adapter(loaded.recipe, trainer)
    # From here on a signal ends the run after a checkpoint, and a run begun before resumes from its last one.
    with watched(loaded.recipe, trainer, session):
        loaded.call("sftplug_trainer_created", trainer=trainer)
        heed_replaced_loss(loaded.recipe, trainer, session)
        weights = WeightSample(trainer.model)
        # The loop: batches of rows, the loss over their trained tokens, an update of the trained parameters.
        with trainer.blaming_optimizer():
            trainer.train(resume_from_checkpoint=session.resume_from)
        # What inference needs: weights, tokenizer with the chat template, the tokens that end a turn.
        save_and_read_back(loaded.recipe, trainer, before, prepared)
    result = replace(_result(loaded, trainer, size), moved=weights.moved())
    session.finish(trainer.state.global_step, result)
    if is_main():
        write_card(session.directory, loaded.recipe, result.output)
        _tell_result(loaded, result)
    return result


def try_what_comes_later(recipe: Recipe, trainer: SftplugTrainer, before: Before, prepared: Prepared) -> None:
    """Find out before the first step what could fail at the end: what would be saved is saved and read back.

    `before` is the base, without its adapter. Raises ModelError.
    """
    from sftplug.training.callback_state import is_resumable
    from sftplug.training.callbacks import allocating

    before.refuse_idle(trainer.model)
    if is_whole_here(trainer) and is_main():
        refuse_other_start(recipe, trainer, before)
        beside = partial(save_beside, trainer, prepared)
        try_to_save(recipe, trainer, before, partial(save, trainer, prepared), beside)
    elif trainer.held is not None and trainer.splits_model() and is_resumable(trainer.args):
        trainer.held.refuse_left_out(allocates=allocating(trainer.model) is not None)


def join(recipe: Recipe) -> None:
    """Meet the other processes, if a launcher has started this one. Raises ModelError for options that are no good."""
    if not is_launched():
        return
    quiet_libraries()
    find_build_tools(recipe)
    base_model_path(recipe)  # builds the model if need be; among several, only the main process would save it
    try:
        training_arguments(recipe)  # the trainer's options decide what the processes talk through
    except (ValueError, ImportError) as error:
        raise ModelError(f"train: {error}") from error
    if not is_main():
        from transformers.utils import logging

        logging.set_verbosity_error()  # the main process says it


def _result(loaded: LoadedRecipe, trainer: SftplugTrainer, size: ParameterCounts) -> RunResult:
    return RunResult(
        output=Path(loaded.recipe.output),
        log=tuple(trainer.state.log_history),
        loss=trainer.mean_loss(),
        size=size,
        seconds=trainer.clock.seconds,
        tokens=trainer.tokens,
    )


def _tell_result(loaded: LoadedRecipe, result: RunResult) -> None:
    """Tell the plugins in use that the run is over; if one of them fails, the result is there all the same."""
    try:
        loaded.call("sftplug_run_finished", result=result)
    except PluginError as error:
        raise TrainingError(f"{error}\nThe run itself is over: its result is saved in {result.output}.") from error


def _laid(recipe: Recipe, model: PreTrainedModel) -> tuple[bool, bool]:
    """Return whether rows are laid end to end, and whether their documents are marked for a model with a state.

    The kernels that such a model has for documents take one row.
    """
    how = layout(recipe)
    marked = how in ("rows", "flat") and carries_state(model)
    return how == "flat" or marked, marked


def make_trainer(
    recipe: Recipe, model: PreTrainedModel, prepared: Prepared, before: Before | None = None
) -> SftplugTrainer:
    """Return the trainer for `model` with the recipe's adapter, callbacks and rows.

    `before` is what `model` was before the adapter prepared it; by default what it is now.
    """
    from transformers import PrinterCallback

    from sftplug.training.callbacks import AdaLoraCallback, GradientCheck, allocating
    from sftplug.training.collator import Collator
    from sftplug.training.trainer import SftplugTrainer

    arguments = training_arguments(recipe)
    adapter = peft_config(recipe.adapter)
    ids = new_ids(recipe) if recipe.model.add_tokens else []
    if adapter is not None and ids:
        train_new_embeddings(adapter, model, ids)
    pad = int(prepared.tokenizer.pad_token_id)
    # Else the trainer does so itself, and warns of it.
    model.config.pad_token_id = model.generation_config.pad_token_id = pad
    before = before or Before(recipe, model)
    callbacks = [trainer_callback(callback) for callback in recipe.callbacks]
    loss_missing = router_loss_is_missing(model)  # while nothing of the adapter is in it
    trainer = SftplugTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.train,
        eval_dataset=prepared.eval,
        processing_class=prepared.tokenizer,
        data_collator=Collator(pad, int(arguments.pad_to_multiple_of or 1), *_laid(recipe, model)),
        peft_config=adapter,
        callbacks=[GradientCheck(), *callbacks],
        groups=_groups(recipe, prepared),
    )
    if loss_missing:
        trainer.leave_out_router_loss()
    _hand_over(recipe, trainer)
    _name_neutrally(trainer, recipe)
    trainer.remove_callback(PrinterCallback)  # prints dictionaries; what is shown is the plugins' business
    trainer.origins, trainer.keep, trainer.notices = prepared.origins, _keep(recipe), []
    if adapter is not None:
        keep_adapter_in_fp32(trainer.model)
        continue_adapter(recipe, trainer.model)
        if (tuner := allocating(trainer.model)) is not None:
            trainer.add_callback(AdaLoraCallback(f"'{recipe.adapter.type}'", tuner))
    if ids:
        refuse_untrained(recipe.adapter.type, trainer.model)
    _hold(trainer, recipe, before, callbacks)
    return trainer


def _hold(trainer: SftplugTrainer, recipe: Recipe, before: Before, callbacks: Sequence[TrainerCallback]) -> None:
    """Say what of the model is saved, and how; and what else a checkpoint holds."""
    from sftplug.training.blame import BlamingHandler
    from sftplug.training.callback_state import Carried
    from sftplug.training.model_state import TrainedState

    trainer.write_adapter = partial(save_adapter, recipe) if saves_itself(recipe.adapter) else None
    trainer.held = TrainedState(trainer.model, before.base, beside=before.structure is not None)
    if (folder := continued(recipe)) is not None:
        trainer.held.begin_with(folder)
    trainer.carried = [Carried(callbacks)]
    trainer.callback_handler = BlamingHandler.around(trainer.callback_handler, callbacks, recipe.callbacks)


def _hand_over(recipe: Recipe, trainer: SftplugTrainer) -> None:
    """Give the trainer the components that it calls at every step, and the teacher of the loss if it has one.

    Raises ModelError for a loss that lacks its base or teacher.
    """
    from sftplug.training.chosen_loss import refuse_without_base
    from sftplug.training.scoring import Scorer

    refuse_without_base(recipe.loss, trainer.model)
    packed = layout(recipe) in ("rows", "flat")
    teacher = load_teacher(recipe, trainer.args.device, packed=packed, marked=trainer.data_collator.marked)
    loss = None if is_nll(recipe.loss) else recipe.loss
    head = first_head(recipe, on_cpu=trainer.args.device.type == "cpu")
    trainer.scorer = Scorer(loss, head, teacher, trainer.accelerator.autocast)
    trainer.chosen_optimizer, trainer.chosen_schedule = recipe.optimizer, recipe.schedule
    trainer.readers = [partial(loss_metrics, callback) for callback in recipe.callbacks if callback.reads_provenance]


def _keep(recipe: Recipe) -> Retained:
    """Return which checkpoints are kept: what the recipe says, else the last and the best one."""
    name = "save_total_limit"
    return Retained(recipe.train[name], asked_for=True) if name in recipe.train else Retained()


def _name_neutrally(trainer: SftplugTrainer, recipe: Recipe) -> None:
    """Let TensorBoard's events go to a folder that is not named after this machine, unless the user named one."""
    from transformers.integrations import TensorBoardCallback

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(Path(recipe.output) / "tensorboard")


def _groups(recipe: Recipe, prepared: Prepared) -> dict[str, LossGroups]:
    """Return what tells the rows of each split apart in the log: the names of their sources, and their tags."""
    from sftplug.training.loss_sums import short_names

    train = [label(source.source) for source in recipe.data.train]
    held_out = [label(source.source) for source in recipe.data.eval]
    names = {"train": short_names(train), "eval": short_names(held_out or train)}
    return {split: LossGroups.of(known, prepared.groups.get(split, ())) for split, known in names.items()}


@contextmanager
def watched(recipe: Recipe, trainer: SftplugTrainer, session: RunSession) -> Iterator[None]:
    """Record the loop, make it stop at a signal, and let it go on where `session` does."""
    from sftplug.training.callback_state import CarriedComponents
    from sftplug.training.callbacks import (
        CheckpointSchedule,
        MetricsWriter,
        Moments,
        OnTrainBegin,
        RestoreCounters,
        StateKeeper,
        Stopwatch,
    )
    from sftplug.training.movement import MovementCheck
    from sftplug.training.signals import SignalHandler

    def look() -> None:
        trainer.refuse_others()
        trainer.in_force = StrategyCheck(recipe, trainer).check()
        options, steps = trainer.args, trainer.state.save_steps
        trainer.saves = trainer.keep.told(options.save_strategy.value, steps, options.metric_for_best_model)

    stop = SignalHandler(lambda: [tell() for tell in trainer.when_stopped])
    trainer.callback_handler.plugins = session.loaded.plugins()
    trainer.add_callback(OnTrainBegin(look))
    called = (recipe.loss, recipe.optimizer, recipe.schedule, trainer.scorer.head.head)
    trainer.carried = [*trainer.carried, CarriedComponents(called)]
    trainer.add_callback(StateKeeper(trainer.carried, session.checkpoint))
    trainer.clock, trainer.while_saving = Stopwatch(session.state.seconds), stop.waiting
    if session.checkpoint is not None:
        trainer.goes_on_from = session.checkpoint.path
        trainer.add_callback(RestoreCounters(trainer.go_on, session.checkpoint, partial(setattr, trainer, "goes_on")))
    trainer.add_callback(MetricsWriter(session, trainer.clock, lambda: trainer.tokens))
    trainer.add_callback(Moments(session.loaded.call))
    if not trainer.splits_model():
        trainer.add_callback(MovementCheck(trainer.notices.append, suits(recipe).get("learning_rate")))
    # The last of ours: it may end the run once a checkpoint is saved, of which all others must have heard by then.
    trainer.add_callback(CheckpointSchedule(stop))
    with stop.listening():
        yield


def keep_adapter_in_fp32(model: nn.Module) -> None:
    """TRL casts the adapter of a quantized model to bf16, PEFT loads it back as fp32: a resumed run would differ."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32)


# --- save -------------------------------------------------------------------------------------------------------------


def save_and_read_back(recipe: Recipe, trainer: SftplugTrainer, before: Before, prepared: Prepared) -> None:
    """Save the result, and compare what is read back with the model in memory. Raises TrainingError."""
    output = Path(recipe.output)
    noted = noting(output) if is_main() else nullcontext()
    with explaining("the trained model cannot be saved", output), noted:
        save(trainer, prepared, output)
    if is_whole_here(trainer) and is_main():
        read_back(recipe, trainer, before)
