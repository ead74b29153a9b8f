"""What a reader should know of what a recipe trains: said by `check` and `plan`, refused by neither."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sftplug.errors import SftplugError
from sftplug.planning.settings import settings_of
from sftplug.planning.weights import ModelWeights, count_weights
from sftplug.planning.work import processes_of, rows_of, updates_of
from sftplug.training.preflight.notices import endless_warmup
from sftplug.util.device import find_device

if TYPE_CHECKING:
    from sftplug.data.prepare import Prepared
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.recipe.model import Recipe
    from sftplug.types.result import ParameterCounts


def model_notes(recipe: Recipe) -> tuple[list[str], ParameterCounts | None]:
    """Return what there is to say of the recipe's model, and what is done with each kind of module in it.

    Nothing and None where that cannot be known without weights.
    """
    try:
        _, weights = count_weights(recipe, settings_of(recipe, on_cpu=find_device(None).on_cpu))
    except SftplugError:
        return [], None
    return list(notes_of(recipe, weights)), weights.size


def notes_of(recipe: Recipe, weights: ModelWeights) -> Iterator[str]:
    """Yield what has no adapter, which ranks are not the usual one, and what stays larger than it seems."""
    size, kind = weights.size, recipe.adapter.type
    if size.modules and not recipe.adapter.trains_base:
        modules = ", ".join(f"{name} ({count})" for name, count in sorted(size.modules.items()))
        yield f"adapter '{kind}' trains beside: {modules}"
    if size.untouched:
        what = "not trained" if recipe.adapter.trains_base else "without adapter"
        yield f"{what}: {size.shares()}"
    for name, rank in size.ranks.items():
        yield f"adapter '{kind}': the update of {name} has rank {rank}, because it holds several projections in one"
    if weights.routers:
        yield (
            f"adapter '{kind}' also trains the routers of the experts, such as {weights.routers[0]}: which expert a "
            "token gets may change, and some servers of adapters do not load that"
        )
    if weights.parted:
        yield (
            f"adapter '{kind}' changes the embeddings and not the head, which shares their weights, or the other way "
            f"round: `sftplug merge` gives the head its own, {weights.parted:,} parameters more"
        )
    if size.float_experts:
        dtype = str(settings_of(recipe, on_cpu=True).dtype).removeprefix("torch.")
        yield (
            f"quantization {recipe.quantization.type} holds linear layers in {recipe.quantization.bits} bits; the "
            f"experts are tensors and no layers, and stay in {dtype}: {_bytes(size.float_experts)} of "
            f"{_bytes(weights.base)} of base weights (transformers quantizes layers alone)"
        )


def uncounted(recipe: Recipe) -> Iterator[str]:
    """Yield what is not planned: what patches change, and what a plugin's head holds."""
    head = recipe.loss.head
    if head is not None and head.takes == "states":
        yield f"head '{head.type}' is counted as TRL's fused one: what it holds and how long it takes, it alone knows"
    if recipe.patches:
        named = ", ".join(patch.type for patch in recipe.patches)
        yield f"what `patches` ({named}) change of memory and speed is not counted: planned is the model without them"


def notes_of_rows(loaded: LoadedRecipe, prepared: Prepared) -> Iterator[str]:
    """Yield what only the rows tell of a recipe whose length is said in epochs: how many updates there are."""
    recipe = loaded.recipe
    settings = settings_of(recipe, on_cpu=find_device(None).on_cpu)
    if settings.max_steps <= 0:
        yield from endless_warmup(loaded, updates_of(settings, rows_of(prepared), processes_of(recipe)) or 0)


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 10**9 else f"{count / 1e6:,.2f} MB"
