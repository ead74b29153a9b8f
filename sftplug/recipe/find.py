"""Where a recipe is: a path or the name of a shipped one; and the recipes that it is built on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sftplug.errors import Problem, RecipeError, did_you_mean
from sftplug.plugin.additions import plugin_recipes
from sftplug.recipe.problems import problem_at
from sftplug.recipe.yaml import MOST_VALUES, Tree, read_yaml
from sftplug.util.arguments import argument


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes, in an installed wheel or in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Return name -> file of every shipped recipe; the name is the path in the folder, without ``.yaml``."""
    folder = recipes_folder()
    return {str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.rglob("*.yaml"))}


def launch_scripts() -> dict[str, Path]:
    """Return name -> file of the shipped scripts that start any recipe with a launcher: ``launch/torchrun.sh``."""
    folder = recipes_folder()
    files = (file for file in sorted((folder / "launch").glob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def find_shipped(name: str, blocked: Iterable[str] = ()) -> Path:
    """Return the file of a shipped recipe or launch script, or of a recipe of one's own, as `find_recipe` does."""
    scripts = launch_scripts()
    if name in scripts:
        return scripts[name]
    try:
        return find_recipe(name, blocked=blocked)
    except RecipeError as error:
        hint = did_you_mean(name, scripts)
        if not hint or did_you_mean(name, shipped_recipes()):
            raise
        raise RecipeError(name, [Problem("recipe", f"no shipped recipe or script '{name}'.{hint}")]) from error


def find_recipe(reference: str, base: Path | None = None, blocked: Iterable[str] = ()) -> Path:
    """Return the file that `reference` names: a path (relative to `base`), else the name of a shipped recipe.

    That is one of sftplug, such as ``quickstart``, or of a plugin that is not `blocked`, such as ``acme/base``.
    """
    path = (base or Path()) / Path(reference).expanduser()
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if reference in shipped:
        return shipped[reference]
    broken: list[str] = []
    plugin = reference.partition("/")[0]
    offered = plugin_recipes([plugin], broken, blocked) if "/" in reference else {}
    if reference in offered:
        return offered[reference][1]
    what = "is a folder, not a recipe" if path.is_dir() else "there is no such file"
    beside = [str(Path(reference).with_name(file.name)) for file in path.parent.glob("*.yaml")]
    hint = did_you_mean(reference, [*beside, *shipped, *plugin_recipes(blocked=blocked)])
    text = f"{what}, and no shipped recipe '{reference}'.{hint} `sftplug recipes` lists them."
    text += "".join(f" Note: {sentence}" for sentence in broken)
    text += f" Note: blocked with {argument('--no-plugin')}: {plugin}." if plugin in blocked else ""
    raise RecipeError(reference, [Problem("recipe", text)])


def is_own(reference: str) -> bool:
    """Whether `reference` is the path of a recipe that did not come with sftplug or a plugin."""
    file = Path(reference).expanduser()
    return file.is_file() and recipes_folder() not in file.absolute().parents


# --- extend -----------------------------------------------------------------------------------------------------------

MOST_EXTENDED = 20
"""Longest chain of recipes, each of which extends the next."""


def read_extended(file: Path, tree: Tree | None = None, blocked: Iterable[str] = ()) -> list[Tree]:
    """Return what `file` extends, the lowest first, and `file` itself. Raises RecipeError for a chain without end.

    `tree` is what `file` holds, where it is not a file but a dict of a program. Recipes of plugins that are `blocked`
    are not there.
    """
    files, trees = [file], [read_yaml(file) if tree is None else tree]
    while (parent := trees[-1].data.pop("extends", None)) is not None:
        above, extending = files[-1], trees[-1]
        try:
            files.append(_extended(parent, files, blocked))
        except RecipeError as error:
            raise RecipeError(above.name, [problem_at(extending, ("extends",), error.problems[0].text)]) from error
        trees.append(read_yaml(files[-1]))
        if sum(len(tree.origins) for tree in trees) > MOST_VALUES:
            text = f"the recipes that extend each other hold more than {MOST_VALUES:,} values."
            raise RecipeError(above.name, [problem_at(extending, ("extends",), text)])
    return trees[::-1]


def _extended(parent: object, files: Sequence[Path], blocked: Iterable[str]) -> Path:
    """Return the file that the last of `files` extends; each of them extends the next."""
    last = files[-1]
    if not isinstance(parent, str):
        raise RecipeError(last.name, [Problem("extends", "must be a path or the name of a recipe")])
    if len(files) > MOST_EXTENDED:
        raise RecipeError(last.name, [Problem("extends", f"more than {MOST_EXTENDED} recipes extend each other.")])
    extended = find_recipe(str(parent), last.parent, blocked)
    if extended.resolve() in [file.resolve() for file in files]:
        circle = " -> ".join(path.name for path in (*files, extended))
        raise RecipeError(last.name, [Problem("extends", f"the recipes extend each other in a circle: {circle}")])
    return extended
