"""How a model answers by itself: its generation configuration, made fit to be saved with the result."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from sftplug.errors import ModelError

if TYPE_CHECKING:
    from transformers import GenerationConfig

_MODES = ("do_sample", "num_beams", "use_cache", "return_dict_in_generate")
"""What decides whether other options have an effect."""


def drop_unused(config: GenerationConfig | None) -> dict[str, Any]:
    """Take out of `config` what has no effect, such as a temperature without sampling; return what that was.

    transformers loads such a configuration, ignores these options in every answer, and refuses to save them: the model
    answers as it did. Raises ModelError for what is wrong in itself.
    """
    if config is None or _is_sound(config):
        return {}
    from transformers import GenerationConfig

    given, usual = config.to_diff_dict(), GenerationConfig()
    modes = {name: given[name] for name in _MODES if name in given}
    idle = {name: value for name, value in given.items() if name not in _MODES and not _sound(**modes, **{name: value})}
    for name in idle:
        setattr(config, name, copy.copy(getattr(usual, name, None)))
    if not _is_sound(config):
        raise ModelError(f"model: its generation_config.json cannot be saved again: {_complaint(config)}")
    return idle


def _sound(**options: Any) -> bool:
    from transformers import GenerationConfig

    config = GenerationConfig()
    for name, value in options.items():
        setattr(config, name, value)  # not when it is made, which would log what is said here
    return _is_sound(config)


def _is_sound(config: GenerationConfig) -> bool:
    return _complaint(config) is None


def _complaint(config: GenerationConfig) -> str | None:
    """Return what transformers would say in place of saving."""
    try:
        config.validate(strict=True)
    except ValueError as error:
        return str(error)
    return None
