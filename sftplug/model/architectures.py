"""Which kinds of models a configuration may describe: causal language models that can be made, of known numbers."""

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


def refuse_other_kinds(config: Any) -> None:
    """Raise ModelError for a model that transformers does not load as a causal language model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "auto_map", None):
        return
    made = ", ".join(getattr(config, "architectures", None) or ()) or config.model_type
    kind = "not a causal language model"
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        kind = "a model of images and text, which transformers does not load as a causal language model"
    raise ModelError(
        f"model: {made} is {kind}, and sftplug trains what `AutoModelForCausalLM` loads. Name a text model instead."
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
