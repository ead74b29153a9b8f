"""Which kinds of models a configuration may describe: such that go on with text and can be made, of known numbers."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from sftplug.errors import ModelError

NO_MODEL = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
"""What transformers and torch raise where sizes do not go together; what an option cannot do is a ValueError."""
_MOST_LAYERS = 2_000
"""The deepest published models have some 200 layers; each takes time to make, also without weights."""


def refuse_endless(config: Any) -> None:
    """Raise ModelError for a model of so many layers that it would never be made."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise ModelError(
            f"the model's configuration names {layers:,} layers (`num_hidden_layers`); no model has more than "
            f"{_MOST_LAYERS:,}. Get the model once more."
        )


def auto_class(config: Any) -> Any:
    """Return the class of transformers that makes and loads the model of `config`: of text, or of images and text.

    Where a configuration is of both, such as that of Qwen3.5, the model is what its author saved.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    kind = type(config)
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForCausalLM
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForImageTextToText
    both = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind].__name__
    saved = getattr(config, "architectures", None) or ()
    return AutoModelForImageTextToText if both in saved else AutoModelForCausalLM


def refuse_other_kinds(config: Any) -> None:
    """Raise ModelError for a model that goes on with no text: transformers has no class that loads it for that."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if getattr(config, "auto_map", None) or (known and not getattr(config, "is_encoder_decoder", False)):
        return
    made = ", ".join(getattr(config, "architectures", None) or ()) or config.model_type
    kind = "not a causal language model"
    if getattr(config, "is_encoder_decoder", False):
        kind = "a model with an encoder, which reads a prompt otherwise than it writes"
    raise ModelError(
        f"model: {made} is {kind}, and sftplug trains what `AutoModelForCausalLM` or `AutoModelForImageTextToText` "
        "loads and goes on with a text. Name such a model instead."
    )


def refuse_unknown_quantization(name: str, config: Any) -> None:
    """Raise ModelError for a quantization that transformers does not know: it would take the weights as they stand."""
    from transformers.quantizers.auto import AutoHfQuantizer

    given = getattr(config, "quantization_config", None)
    if given is None:
        return
    given = given if isinstance(given, dict) else given.to_dict()
    try:
        known = AutoHfQuantizer.supports_quant_method(given)
    except ValueError:
        known = False  # it names none
    if not known:
        method = given.get("quant_method")
        raise ModelError(
            f"the configuration of {name} says that the weights are quantized by {method!r}, which transformers "
            f"{version('transformers')} does not know. It would take them as they stand. Name the model that it was "
            "made from, or install a version of transformers that knows it."
        )
