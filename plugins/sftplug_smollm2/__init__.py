"""SmolLM2-135M-Instruct, real weights that come with a Python package: a pretrained model without a model hub."""

import sftplug
from sftplug_smollm2.builder import SmolLM2


@sftplug.hookimpl
def sftplug_model_builders() -> list[type[sftplug.ModelBuilder]]:
    """Offer SmolLM2."""
    return [SmolLM2]
