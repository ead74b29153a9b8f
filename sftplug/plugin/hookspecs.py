"""Every hook of sftplug, in the order in which a run calls them.

There are two sorts. *Offer hooks* are collecting: each plugin returns a list of component classes, from which a
recipe chooses by name. *Moment hooks* observe the boundaries of a run; they return nothing and change nothing. What
must transform what another plugin made is not a hook but a component, listed in order in the recipe.

Of several processes that train together, the main one tells the plugins of these moments; of `sftplug_trainer_created`,
which is where callbacks are added, each of them does.

Each moment has a `context`, a `MomentContext`: the command, the run, whether it was resumed, and its folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import typer

    from sftplug.plugin.components import (
        Adapter,
        Callback,
        ChatTemplate,
        DatasetFormat,
        DatasetSource,
        Deferred,
        Exporter,
        Head,
        LengthPolicy,
        Loss,
        Masking,
        Metric,
        ModelBuilder,
        ModelPatch,
        Optimizer,
        Policy,
        Quantization,
        RecipeSection,
        RowProcessor,
        Schedule,
    )
    from sftplug.recipe.model import Recipe
    from sftplug.types.ledger import Ledger
    from sftplug.types.moment import MomentContext
    from sftplug.types.result import RunResult
    from sftplug.types.trainer import RunTrainer

PROJECT = "sftplug"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def sftplug_dataset_sources() -> list[type[DatasetSource]]:  # type: ignore[empty-body]
    """Offer dataset sources: where rows come from."""


@hookspec
def sftplug_row_processors() -> list[type[RowProcessor]]:  # type: ignore[empty-body]
    """Offer row processors: rows -> rows, before a format reads them."""


@hookspec
def sftplug_dataset_formats() -> list[type[DatasetFormat]]:  # type: ignore[empty-body]
    """Offer dataset formats: row -> conversation."""


@hookspec
def sftplug_chat_templates() -> list[type[ChatTemplate]]:  # type: ignore[empty-body]
    """Offer chat templates: conversation -> text."""


@hookspec
def sftplug_maskings() -> list[type[Masking]]:  # type: ignore[empty-body]
    """Offer masking strategies: tokens with provenance -> loss weight of each."""


@hookspec
def sftplug_length_policies() -> list[type[LengthPolicy]]:  # type: ignore[empty-body]
    """Offer length policies: what becomes of a row that is too long."""


@hookspec
def sftplug_model_builders() -> list[type[ModelBuilder]]:  # type: ignore[empty-body]
    """Offer builders of base models, for runs that download nothing."""


@hookspec
def sftplug_quantizations() -> Sequence[type[Quantization] | Deferred]:  # type: ignore[empty-body]
    """Offer quantization backends: the dtype or quantization of the base model's weights.

    What a library has very many of is offered as `Deferred`: the name now, the class when a recipe names it.
    """


@hookspec
def sftplug_model_patches() -> list[type[ModelPatch]]:  # type: ignore[empty-body]
    """Offer model patches: how the loaded model computes."""


@hookspec
def sftplug_adapters() -> Sequence[type[Adapter] | Deferred]:  # type: ignore[empty-body]
    """Offer adapter types: which parameters are trained; very many of them as `Deferred`."""


@hookspec
def sftplug_losses() -> list[type[Loss]]:  # type: ignore[empty-body]
    """Offer losses: logits and label of each trained token -> what it costs."""


@hookspec
def sftplug_heads() -> list[type[Head]]:  # type: ignore[empty-body]
    """Offer heads: last hidden states and label of each trained token -> its negative log-likelihood."""


@hookspec
def sftplug_optimizers() -> Sequence[type[Optimizer] | Deferred]:  # type: ignore[empty-body]
    """Offer optimizers: what updates the weights by their gradients; very many of them as `Deferred`."""


@hookspec
def sftplug_schedules() -> Sequence[type[Schedule] | Deferred]:  # type: ignore[empty-body]
    """Offer schedules: which share of the learning rate each update has; very many of them as `Deferred`."""


@hookspec
def sftplug_callbacks() -> list[type[Callback]]:  # type: ignore[empty-body]
    """Offer callbacks: what watches the training loop."""


@hookspec
def sftplug_metrics() -> list[type[Metric]]:  # type: ignore[empty-body]
    """Offer metrics: what the trained model's own replies are worth."""


@hookspec
def sftplug_exporters() -> list[type[Exporter]]:  # type: ignore[empty-body]
    """Offer exporters: a finished model -> the form in which another program takes it."""


@hookspec
def sftplug_policies() -> list[type[Policy]]:  # type: ignore[empty-body]
    """Offer policies: recipe and command -> what is against the rules."""


@hookspec
def sftplug_recipe_sections() -> list[type[RecipeSection]]:  # type: ignore[empty-body]
    """Offer sections of the recipe: options of the plugin's own, under a name of its own."""


@hookspec
def sftplug_commands() -> Mapping[str, Callable[..., Any] | typer.Typer]:  # type: ignore[empty-body]
    """Offer commands of the command line, by name: functions as typer takes them, or typer apps.

    ``sftplug NAME`` calls it; what it raises by accident is told as the plugin's. The hook must stand in the module of
    the entry point, or its name at least: plugins in whose module it does not stand are not imported to be asked.
    """


@hookspec
def sftplug_recipes() -> Path:  # type: ignore[empty-body]
    """Offer recipes: a folder of YAML files, each of which is known as ``PLUGIN/NAME``.

    ``extends: acme/base`` is ``base.yaml`` in the folder of the plugin `acme`, whose values a recipe lays its own over;
    ``sftplug recipes`` lists them. As for `sftplug_commands`, the name must stand in the module of the entry point.
    """


@hookspec
def sftplug_recipe_loaded(recipe: Recipe, origins: Mapping[str, str], context: MomentContext) -> None:
    """The recipe is valid; nothing has been downloaded or loaded yet.

    `origins` is dotted path -> where the value comes from: ``origins["train.learning_rate"]`` is ``mine.yaml:12``,
    ``sftplug.toml:3 (house file)``, ``command line``, ``default of adapter lora`` or the like.
    """


@hookspec
def sftplug_dataset_prepared(recipe: Recipe, ledger: Ledger, context: MomentContext) -> None:
    """The rows are tokens with labels; `ledger` accounts for every row read. It must not be changed."""


@hookspec
def sftplug_trainer_created(recipe: Recipe, trainer: RunTrainer, context: MomentContext) -> None:
    """Model, adapter and data are in the trainer; the first step comes next."""


@hookspec
def sftplug_evaluation_finished(
    recipe: Recipe, metrics: Mapping[str, float], step: int, context: MomentContext
) -> None:
    """Held-out rows were measured: in the training after `step` updates, at its end, or by ``sftplug eval``.

    `metrics` has the names under which they are logged: ``eval_loss``, ``eval_exact_match`` … Of rows that somebody
    gives to ``sftplug eval`` it is told too.
    """


@hookspec
def sftplug_checkpoint_saved(recipe: Recipe, checkpoint: Path, step: int, context: MomentContext) -> None:
    """A checkpoint is whole, in the folder `checkpoint`, after `step` updates. It may be deleted when others follow."""


@hookspec
def sftplug_run_finished(recipe: Recipe, result: RunResult, context: MomentContext) -> None:
    """Training is over and everything is saved."""


@hookspec
def sftplug_run_failed(recipe: Recipe, error: BaseException, context: MomentContext) -> None:
    """The run stopped with `error`, which is raised again after this hook.

    A run begins when its output folder is claimed, so this is told of rows that are refused, of a signal (`error` is
    `sftplug.Interrupted`) and of all that goes wrong later; not of a recipe or a folder that is refused before.
    """


@hookspec
def sftplug_model_merged(recipe: Recipe, folder: Path, record: Mapping[str, Any], context: MomentContext) -> None:
    """The adapter of a run was made part of the weights, in `folder`; `record` is what ``merge.json`` there holds."""


@hookspec
def sftplug_model_exported(recipe: Recipe, exporter: str, target: Path, context: MomentContext) -> None:
    """The exporter of that name has written the model of a run to `target`, a file or a folder."""


@hookspec
def sftplug_model_pushed(recipe: Recipe, url: str, files: Sequence[str], context: MomentContext) -> None:
    """The model of a run, or what was merged of it, is published at `url`; `files` are what was uploaded."""
