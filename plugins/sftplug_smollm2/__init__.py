"""SmolLM2-135M-Instruct, real weights that come with a Python package: a pretrained model without a model hub."""

from pathlib import Path

import sftplug
from sftplug_smollm2.builder import SmolLM2


@sftplug.hookimpl
def sftplug_model_builders() -> list[type[sftplug.ModelBuilder]]:
    """Offer SmolLM2."""
    return [SmolLM2]


@sftplug.hookimpl
def sftplug_recipes() -> Path:
    """Offer a recipe to build on: ``extends: smollm2/base``."""
    return Path(__file__).parent / "recipes"
