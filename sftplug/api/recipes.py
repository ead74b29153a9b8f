"""Load a recipe, and check it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sftplug.errors import RecipeError, SftplugError
from sftplug.recipe.given import PYTHON, LoadRequest
from sftplug.recipe.load import LoadedRecipe, load_asked
from sftplug.recipe.origins import origin_by_path
from sftplug.types.result import ParameterCounts

Given = LoadedRecipe | str | Path | Mapping[str, Any]
"""A recipe that is loaded, or what `load` takes."""


def load(
    recipe: str | Path | Mapping[str, Any],
    *overrides: str,
    plugins: Iterable[ModuleType] = (),
    without: Iterable[str] = (),
) -> LoadedRecipe:
    """Return a recipe, valid and with everything filled in that it leaves open.

    `recipe` is a path, the name of a shipped recipe, or a dict with the sections of a YAML file; a component in a dict
    may be an object, as in ``{"masking": MyMask(weight=2.0)}``, and relative paths are of the working directory.
    `overrides` are ``"section.key=value"``, as the command line takes them. `plugins` are modules of this program with
    hooks, such as ``sys.modules[__name__]``, beside those that the recipe names; `without` are names of plugins that
    are not loaded.

    Raises RecipeError with every problem at once, in ``.problems``; PluginError for a plugin that does not load.
    """
    reference = str(recipe) if isinstance(recipe, str | Path) else recipe
    return load_asked(LoadRequest(reference, overrides, tuple(without), tuple(plugins), PYTHON))


def loaded(recipe: Given, command: str, begun: Any = None) -> LoadedRecipe:
    """Return `recipe` for what `command` does, about which its policies are asked; load it if it is not loaded.

    `begun` is that of a `LoadRequest`.
    """
    if isinstance(recipe, LoadedRecipe):
        return recipe.for_command(command)
    reference = str(recipe) if isinstance(recipe, str | Path) else recipe
    return load_asked(LoadRequest(reference, origin=PYTHON, command=command, begun=begun))


def check(recipe: Given) -> list[str]:
    """Return a sentence for everything in a recipe that cannot work, as far as that is known without weights.

    First the recipe alone; if that is right, its tokenizer, template, rows, masks and the adapter's targets. An empty
    list means that nothing was found.
    """
    try:
        found = loaded(recipe, "check")
    except RecipeError as error:
        return list(map(str, error.problems))
    except SftplugError as error:
        return [str(error)]
    return problems(found)


def problems(recipe: LoadedRecipe) -> list[str]:
    """Return what is wrong with a recipe that is valid, and tell the plugins in use of recipe and rows."""
    return examine(recipe).problems


@dataclass
class Findings:
    """What `examine` says of a recipe."""

    problems: list[str] = field(default_factory=list)
    """What cannot work."""
    notes: list[str] = field(default_factory=list)
    """What its owner should know all the same."""
    size: ParameterCounts | None = None
    """What is trained of the model; None where that is not known."""


def examine(recipe: LoadedRecipe) -> Findings:
    """Return what is wrong with a recipe that is valid, and what is not wrong and yet worth a word.

    A folder that no run can be written to is said at once: nothing is prepared for it.
    """
    from sftplug.api.rows import prepare
    from sftplug.model.loading import check_positions
    from sftplug.model.teacher import check_teacher_positions
    from sftplug.planning import model_notes, notes_of_rows
    from sftplug.run import RunDirectory
    from sftplug.run.place import refuse_unusable
    from sftplug.training.preflight import problems_before_rows
    from sftplug.training.preflight.notices import notices

    recipe.call("sftplug_recipe_loaded", origins=origin_by_path(recipe))
    try:
        refuse_unusable(recipe, RunDirectory(Path(recipe.recipe.output)))
    except SftplugError as error:
        return Findings([str(error)])
    found = Findings(problems_before_rows(recipe.recipe), notices(recipe))
    try:
        prepared = prepare(recipe)
        found.notes += notes_of_rows(recipe, prepared)
        check_positions(recipe.recipe, prepared.longest)
        if not found.problems:  # of a teacher that cannot be had, all is said
            check_teacher_positions(recipe.recipe, prepared.longest)
    except SftplugError as error:
        found.problems.append(str(error))
    if not found.problems:
        notes, found.size = model_notes(recipe.recipe)
        found.notes += notes
    found.problems = list(dict.fromkeys(found.problems))
    return found
