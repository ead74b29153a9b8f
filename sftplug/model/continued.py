"""An adapter that is trained on: the recipe's own is held against it, and gets what it holds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError
from sftplug.model.merging import problems_of_merging, refuse_no_adapter, trained_by
from sftplug.plugin.calls import peft_config, saves_itself
from sftplug.recipe.adapter_base import OWN, adapter_config

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe

_OF_FILES = ("peft_version", "base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping")
_TOLD_BY_TENSORS = ("target_modules", "target_parameters", "exclude_modules", "ensure_weight_tying", "runtime_config")
_OF_TRAINING = ("dropout", "lora_dropout", "module_dropout", "init_lora_weights", "init_weights")
_NO_MATTER = frozenset({*_OF_FILES, *_TOLD_BY_TENSORS, *_OF_TRAINING})
"""Options of PEFT by which two adapters do not differ, or whose difference shows in their tensors or logits."""


def continued(recipe: Recipe) -> Path | None:
    """Return the folder of the adapter that the recipe trains on; None if it begins a new one."""
    model = recipe.model
    return Path(model.adapter) if model.adapter is not None and not model.merge_adapter else None


def problems_of_adapter(recipe: Recipe) -> list[str]:
    """Return a sentence for everything because of which ``model.adapter`` cannot be trained on as the recipe says."""
    if recipe.model.adapter is None:
        return []
    folder = Path(recipe.model.adapter)
    refuse_no_adapter(folder)
    merging = problems_of_merging(recipe)
    if recipe.model.merge_adapter:
        return [f"model.merge_adapter: {folder} cannot be merged: {text}" for text in merging]
    anew = "" if merging else " `model.merge_adapter: true` makes it part of the weights, and trains a new one."
    return [f"model.adapter: {text}{anew}" for text in _differences(recipe, folder)]


def _differences(recipe: Recipe, folder: Path) -> Iterator[str]:
    """Yield why the recipe's adapter is not the one in `folder`."""
    if (folder / OWN).is_file() or saves_itself(recipe.adapter):
        yield f"{folder} is no type of PEFT, or '{recipe.adapter.type}' is none: only adapters of PEFT are trained on."
        return
    now: Any = peft_config(recipe.adapter)
    then, name = adapter_config(folder), recipe.adapter.type
    kind = str(then.get("peft_type", "")).lower()
    if now is None or str(getattr(now.peft_type, "value", now.peft_type)).lower() != kind:
        yield f"{folder} is an adapter of the type {kind}, and '{name}' is another. Set `adapter: {kind}`."
        return
    own = _as_recipes_say(recipe, folder)
    found = own if own is not None else _as_peft_says(then, now.to_dict())
    if found:
        listed = ", ".join(f"`{key}` is {was}, and {here} in the recipe" for key, (was, here) in found.items())
        given = " and ".join(f"`{_path(key)}: {was}`" for key, (was, _) in found.items())
        yield f"of the adapter in {folder}, {listed}. To train on, set {given}."


def _path(key: str) -> str:
    return key if "." in key else f"adapter.{key}"


def _as_recipes_say(recipe: Recipe, folder: Path) -> dict[str, tuple[str, str]] | None:
    """Return option -> (then, now) of what differs from the recipe of the run that left the adapter; None without."""
    whose = trained_by(folder)
    if whose is None:
        return None
    old, new = (part.model_dump(mode="json", by_alias=True) for part in (whose.adapter, recipe.adapter))
    aside = {"type", *_NO_MATTER}
    found = {
        name: (_shown(old[name]), _shown(new[name]))
        for name in old
        if name in new and name not in aside and old[name] != new[name]
    }
    tokens = [list(one.model.add_tokens) for one in (whose, recipe)]
    if tokens[0] != tokens[1]:
        found["model.add_tokens"] = _shown(tokens[0]), _shown(tokens[1])
    return found


def _as_peft_says(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return option -> (then, now) of what differs from PEFT's own record of an adapter that no run has left."""
    plain = {name: _plain(value) for name, value in now.items()}
    return {
        name: (_shown(value), _shown(plain[name]))
        for name, value in then.items()
        if name in plain and name not in _NO_MATTER and (value or plain[name]) and _plain(value) != plain[name]
    }


def _plain(value: Any) -> Any:
    """Return `value` as JSON gives it back, sets in their order."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return json.loads(json.dumps(value, default=lambda other: getattr(other, "value", str(other))))


def _shown(value: Any) -> str:
    return json.dumps(value)


# --- with weights -----------------------------------------------------------------------------------------------------


def continue_adapter(recipe: Recipe, model: Any) -> None:
    """Give the adapter of `model` the weights of the one that is trained on.

    Raises ModelError when one of the two holds what the other has no place for.
    """
    folder = continued(recipe)
    if folder is None:
        return
    from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict

    held = load_peft_weights(str(folder), device="cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is looked at below, and shows in the logits
            loaded = set_peft_model_state_dict(model, held)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"model.adapter: what {folder} holds does not fit: {error}") from error
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    if model.active_peft_config.is_prompt_learning:
        return  # kept under another name; whether it says what it did is seen in its logits
    lacking = sorted(trained & set(loaded.missing_keys or ()))
    for names, what in ((lacking, "lacks"), (sorted(loaded.unexpected_keys or ()), "has beside")):
        if names:
            raise ModelError(
                f"model.adapter: the adapter in {folder} adapts other modules than the recipe's: it {what} {names[0]}, "
                f"one of {len(names)} tensors. Name the modules with which it was trained, as its adapter_config.json "
                "lists them (for `lora`: `adapter.targets`)."
            )
