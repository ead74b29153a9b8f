"""What is written at the end of a run, written at its beginning: hours of training must not end in an error."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import SftplugError
from sftplug.model.generation import drop_unused
from sftplug.model.loading import generation_config, load_tokenizer, model_config
from sftplug.plugin.calls import peft_config
from sftplug.run.card import rehearse_card
from sftplug.storage.disk import no_room

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe


def unsavable(recipe: Recipe) -> Iterator[str]:
    """Yield a sentence for each part of the result, the weights apart, that cannot be written or read again."""
    with tempfile.TemporaryDirectory(prefix="sftplug-") as folder:
        for what, save in _PARTS.items():
            try:
                save(recipe, Path(folder))
            except SftplugError as error:
                yield str(error)
            except Exception as error:  # noqa: BLE001 - whatever a library says now, it would say in the end
                yield f"model: its {what} cannot be saved with the result: {_why(error, Path(folder))}"


def _why(error: Exception, folder: Path) -> str:
    room = no_room(error, folder)
    return f"{room.reason}. {room.sentence('TMPDIR')}" if room else f"{type(error).__name__}: {error}"


def _save_config(recipe: Recipe, folder: Path) -> None:
    from transformers import AutoConfig

    config = model_config(recipe)
    config.save_pretrained(folder)
    if not getattr(config, "auto_map", None):  # whose code is not saved here
        AutoConfig.from_pretrained(folder)


def _save_generation(recipe: Recipe, folder: Path) -> None:
    from transformers import GenerationConfig

    config = generation_config(recipe)
    if config is not None:
        drop_unused(config)
        config.save_pretrained(folder)
        GenerationConfig.from_pretrained(folder)


def _save_tokenizer(recipe: Recipe, folder: Path) -> None:
    load_tokenizer(recipe).save_pretrained(folder)


def _save_adapter(recipe: Recipe, folder: Path) -> None:
    config: Any = peft_config(recipe.adapter)
    if config is not None:
        config.save_pretrained(folder)
        type(config).from_pretrained(folder)


def _write_card(recipe: Recipe, folder: Path) -> None:
    rehearse_card(recipe)


_PARTS: dict[str, Callable[[Recipe, Path], None]] = {
    "configuration": _save_config,
    "generation configuration": _save_generation,
    "tokenizer": _save_tokenizer,
    "adapter's configuration": _save_adapter,
    "model card": _write_card,
}
