"""What to change in a recipe so that it fits, tried in the order in which it costs least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftplug.errors import SftplugError
from sftplug.planning.make import Planner
from sftplug.planning.result import Range
from sftplug.plugin.components import Adapter
from sftplug.training.usual_head import first_head, splits

if TYPE_CHECKING:
    from sftplug.planning.work import TrainingRows
    from sftplug.recipe.load import LoadedRecipe

SHORTEST = 256
"""Rows are not cut below so many tokens."""

Load = Callable[[list[str]], "LoadedRecipe"]
"""Loads the recipe with more overrides."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The recipe with changes, and what it takes then."""

    overrides: tuple[str, ...]
    """All changes so far, as the command line takes them."""
    change: str
    """The last of them, and what it costs."""
    total: Range
    fits: bool


def ways_to_fit(load: Load, study: Planner, memory: int) -> Iterator[Fit]:
    """Yield changes laid over each other until the run certainly fits into `memory` bytes.

    A change that the recipe refuses, or that saves nothing, is left out; it is not made.
    """
    made: list[str] = []
    last = study
    for overrides, change in _changes(load([]), study):
        try:
            recipe = load([*made, *overrides]).recipe
            trial = Planner(recipe, study.device, _shortened(last.rows, overrides), like=last)
            total = trial.plan().memory.total
        except SftplugError:
            continue
        if total.high >= last.plan().memory.total.high:
            continue
        made, last = _joined(made, overrides), trial
        yield Fit(tuple(made), change, total, total.high <= memory)
        if total.high <= memory:
            return


def shared(load: Load, study: Planner, made: Sequence[str], memory: int) -> Fit | None:
    """Return the recipe shared out between the fewest of 2, 4 or 8 such devices that fit, after the changes `made`.

    None where the recipe is shared out already, or eight do not do.
    """
    if study.recipe.launch is not None or study.device.on_cpu:
        return None
    for count in (2, 4, 8):
        overrides = [*made, "launch.strategy=fsdp2", f"launch.processes={count}"]
        try:
            total = Planner(load(overrides).recipe, study.device, study.rows).plan().memory.total
        except SftplugError:
            return None
        if total.high <= memory:
            return Fit(tuple(overrides), f"weights shared out between {count} such devices", total, fits=True)
    return None


def _joined(made: list[str], more: list[str]) -> list[str]:
    """Return both, of two for one key the later."""
    keys = {override.partition("=")[0] for override in more}
    return [*(override for override in made if override.partition("=")[0] not in keys), *more]


def _changes(loaded: LoadedRecipe, study: Planner) -> Iterator[tuple[list[str], str]]:
    """Yield overrides with what they cost, the cheapest first."""
    settings = study.settings
    if not settings.checkpointing:
        yield ["train.gradient_checkpointing=true"], "compute activations again: a third slower, the same result"
    recipe = study.recipe
    own = any(patch.changes_logits for patch in recipe.patches)
    if first_head(recipe, on_cpu=settings.on_cpu).takes == "logits" and not own and not splits(recipe):
        yield ["loss.head=chunked"], "logits a piece at a time, and computed again: a little slower, the same result"
    for batch in _smaller(settings.batch):
        accumulation = settings.accumulation * settings.batch // batch
        yield (
            [f"train.per_device_train_batch_size={batch}", f"train.gradient_accumulation_steps={accumulation}"],
            "smaller batches, more of them to an update: the same result",
        )
    if "8bit" not in settings.optimizer:
        where = "train.optim" if settings.chosen is None else "optimizer"
        yield [f"{where}=adamw_8bit"], "optimizer state in 8 bits: nearly the same result"
    yield from _lighter_weights(loaded, study)
    length = study.length // 2
    while length >= SHORTEST:
        yield [f"data.max_length={length}"], "shorter rows: longer ones are dropped or cut as `data.too_long` says"
        length //= 2


def _smaller(batch: int) -> Iterator[int]:
    """Yield ever smaller batches that so many rows can be cut into evenly, each at most half of the one before."""
    # 6 rows are 2 batches of 3, then 6 of 1: not 4 of 2, which would be 8 rows to an update, and another result.
    for size in range(batch // 2, 0, -1):
        if batch % size == 0 and 2 * size <= batch:
            batch = size
            yield size


def _lighter_weights(loaded: LoadedRecipe, study: Planner) -> Iterator[tuple[list[str], str]]:
    """Yield quantizations that adapters ask for, and where the base is trained the adapters themselves."""
    recipe = study.recipe
    # Not those that are read from a library: dozens, which differ in what they can do more than in what they take.
    offers = [offer for _, offer in sorted(loaded.registry.offers[Adapter].items()) if offer.library is None]
    light: list[Any] = [offer.component for offer in offers if not getattr(offer.component, "trains_base", True)]
    if recipe.adapter.trains_base:
        for adapter in light:
            name, quantization = adapter.model_fields["type"].default, _lightest(adapter, study)
            yield (
                [f"adapter={name}", f"quantization={quantization}"],
                "train an adapter in place of the weights: another result",
            )
        return
    for quantization in sorted({_lightest(adapter, study) for adapter in light} - {recipe.quantization.type}):
        yield [f"quantization={quantization}"], "lighter base weights: a slightly worse base"


def _lightest(adapter: type[Adapter], study: Planner) -> str:
    """Return the quantization that an adapter names, else floats of 16 bits, slow as they may be on the device."""
    no_bfloat16 = not study.device.on_cpu and study.device.compute_dtype == "float16"
    return adapter.default_quantization or ("fp16" if no_bfloat16 else "bf16")


def _shortened(rows: TrainingRows | None, overrides: list[str]) -> TrainingRows | None:
    """Return what is known of the rows when they are cut; how many of them are left is not."""
    return None if any(override.startswith("data.max_length=") for override in overrides) else rows
