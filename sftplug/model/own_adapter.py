"""Adapters that are no type of PEFT: what they save, beside a file that says whose it is, and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError, PluginError
from sftplug.model.loading import attention_options, base_model_path, skeleton
from sftplug.plugin.calls import load_adapter, load_kwargs, loading_code, peft_config, prepare_model, saves_itself
from sftplug.plugin.calls import save_adapter as save_by_component
from sftplug.plugin.errors import describe, plugin_error, reason
from sftplug.recipe.adapter_base import OWN, adapter_config
from sftplug.storage.files import write_json

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from sftplug.plugin.components import Adapter, ModelPatch, Quantization
    from sftplug.recipe.model import Recipe


# --- write and read ---------------------------------------------------------------------------------------------------


def save_adapter(recipe: Recipe, model: nn.Module, folder: Path) -> None:
    """Write what the recipe's adapter has trained to `folder`, and what it belongs to. Raises PluginError."""
    save_by_component(recipe.adapter, model, folder)
    options = recipe.adapter.model_dump(mode="json", by_alias=True, exclude={"type"})
    known = {
        "adapter_type": recipe.adapter.type,
        "options": options,
        "base_model_name_or_path": base_model_path(recipe),
        "revision": recipe.model.revision,
    }
    write_json(folder / OWN, known)


def with_own_adapter(recipe: Recipe, base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return `base` with the adapter that `folder` holds. Raises ModelError for one of another type or base."""
    known = adapter_config(folder)
    if known.get("adapter_type") != recipe.adapter.type:
        raise ModelError(
            f"{folder / OWN} is of the adapter '{known.get('adapter_type')}', and the recipe of the run names "
            f"'{recipe.adapter.type}'."
        )
    load_adapter(recipe.adapter, base, folder)
    return base


def by_card(part: Quantization | ModelPatch | Adapter, model: PreTrainedModel, **given: Path) -> PreTrainedModel:
    """Return the base `model` as the code of the model card makes it what was trained, by what `part` says of itself.

    `given` are more names that the code knows: of an adapter, `files`, the folder with what was saved. Raises
    PluginError when that code fails.
    """
    names: dict[str, Any] = {"model": model, **given}
    try:
        exec(compile(loading_code(part), f"<loading_code of {part.type}>", "exec"), names)
    except Exception as error:
        raise plugin_error(part, "loading_code", f"must return Python that runs: {reason(error)}") from error
    loaded: PreTrainedModel = names["model"]
    return loaded


# --- what can be known before weights are loaded ----------------------------------------------------------------------


def problems_of_own(recipe: Recipe) -> list[str]:
    """Return a sentence for everything because of which an adapter that is no type of PEFT would come to nothing."""
    adapter = recipe.adapter
    if peft_config(adapter) is not None:
        return []
    return [*_problems_of_training(recipe), *(_problems_of_saving(recipe) if saves_itself(adapter) else ())]


def _problems_of_training(recipe: Recipe) -> Iterator[str]:
    model = skeleton(recipe, **attention_options(recipe))
    base = {name for name, _ in model.named_parameters()}
    try:
        prepare_model(recipe.adapter, model)
    except PluginError:
        return  # one that reads the numbers of the weights, say; it is asked again when they are there
    yield from untrained(recipe, model, base)


def untrained(recipe: Recipe, model: nn.Module, base: set[str]) -> Iterator[str]:
    """Yield a sentence when nothing of `model` is trained, or what the adapter does not say.

    `base` are the names of the parameters that were there before the adapter.
    """
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    if not trained:
        yield (
            f"{describe(recipe.adapter)} trains nothing: no parameter of the model is left to be trained. Choose "
            "another adapter, or other options of it."
        )
    own = [name for name in trained if name in base]
    if own and peft_config(recipe.adapter) is None and not recipe.adapter.trains_base:
        yield (
            f"{describe(recipe.adapter)} trains {len(own)} parameters of the base itself, such as {own[0]}, and says "
            "that it does not (`trains_base`). Let its `prepare_model` freeze them, or set `trains_base = True`."
        )


def _problems_of_saving(recipe: Recipe) -> Iterator[str]:
    adapter, launch = recipe.adapter, recipe.launch
    if not loading_code(adapter).strip():
        yield (
            f"{describe(adapter)} is no type of PEFT and has no `loading_code`: nobody could load what it saves by its "
            "model card. Let that return the Python that does to the base `model` what its `load` does."
        )
    if load_kwargs(recipe.quantization).get("quantization_config") is not None:
        yield (
            f"{describe(adapter)} is no type of PEFT, and the trainer trains nothing else on "
            f"{recipe.quantization.type} weights. Choose `quantization: bf16` or `fp32`, or an adapter such as `lora`."
        )
    if launch is not None and launch.strategy != "ddp":
        yield (
            f"{describe(adapter)} is no type of PEFT, and saves the whole of what it trains, which `{launch.strategy}` "
            "splits. Choose `launch: ddp`, or an adapter such as `lora`."
        )


# --- what plain loading does not know ---------------------------------------------------------------------------------


class ModelOutline:
    """What of a model plain loading gives back: its parameters and modules, and what is done around them."""

    def __init__(self, model: nn.Module) -> None:
        """Take down how `model` is before an adapter changes it."""
        self._names = _names(model)
        self._modules = _modules(model)

    def brought(self, model: nn.Module) -> list[str]:
        """Return the names of the parameters and buffers that `model` has now and that plain loading does not know."""
        return sorted(_names(model) - self._names)

    def is_of(self, model: nn.Module) -> bool:
        """Whether the modules of `model` are still those, and compute what they did."""
        return not self.brought(model) and _modules(model) == self._modules


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}


def _modules(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {
        name: (type(module), len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        for name, module in model.named_modules()
    }
