"""What can be known of a shipped recipe without the weights of its model: by its configuration and a tiny twin."""

from sftplug.proving.prove import STAGES, RecipeProof, Stage, prove_recipe, to_dict

__all__ = ["STAGES", "RecipeProof", "Stage", "prove_recipe", "to_dict"]
