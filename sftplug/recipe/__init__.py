"""Recipes: what a run does, as data. To load one takes plugins, so what does is imported when it is asked for."""

import typing as _typing

if _typing.TYPE_CHECKING:
    from sftplug.recipe.find import find_recipe, shipped_recipes
    from sftplug.recipe.load import LoadedRecipe, load_recipe
    from sftplug.recipe.model import Recipe
    from sftplug.recipe.section import InputPath
else:
    _LAZY = {
        **dict.fromkeys(("find_recipe", "shipped_recipes"), "sftplug.recipe.find"),
        **dict.fromkeys(("LoadedRecipe", "load_recipe"), "sftplug.recipe.load"),
        "InputPath": "sftplug.recipe.section",
        "Recipe": "sftplug.recipe.model",
    }

    def __getattr__(name):
        """Return one of the names above."""
        if name not in _LAZY:
            raise AttributeError(f"module 'sftplug.recipe' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)


__all__ = ["InputPath", "LoadedRecipe", "Recipe", "find_recipe", "load_recipe", "shipped_recipes"]
