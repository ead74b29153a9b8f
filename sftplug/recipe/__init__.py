"""Recipes: what a run does, as data."""

from sftplug.recipe.find import find_recipe, shipped_recipes
from sftplug.recipe.load import LoadedRecipe, load_recipe
from sftplug.recipe.model import InputPath, Recipe

__all__ = ["InputPath", "LoadedRecipe", "Recipe", "find_recipe", "load_recipe", "shipped_recipes"]
