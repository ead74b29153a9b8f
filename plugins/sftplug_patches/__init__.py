"""Model patches: how the loaded model computes."""

from sftplug import ModelPatch, hookimpl
from sftplug_patches.dropout import DisableDropout


@hookimpl
def sftplug_model_patches() -> list[type[ModelPatch]]:
    """Offer them."""
    return [DisableDropout]
