"""The rules of a house: a file ``sftplug.toml`` beside the recipes, or in a folder above, that holds for all of them.

    plugins = ["acme_house", "./company.py"]        in use for every recipe

    [[policies]]                                    what every recipe is held to
    type = "limits"
    learning_rate = 1e-3

    [defaults.train]                                laid beneath every recipe
    weight_decay = 0.01

What may be trusted is said in ``docs/safety.md``: a file that is only found, and belongs to somebody else, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftplug.errors import Problem, RecipeError, did_you_mean
from sftplug.recipe.problems import origin_of, problem_at
from sftplug.recipe.toml import read_toml
from sftplug.recipe.train_options import is_train_option
from sftplug.recipe.yaml import Path_, Tree, dotted, leaves
from sftplug.util.arguments import argument

HOUSE, VARIABLE = "sftplug.toml", "SFTPLUG_CONFIG"
KEYS = ("plugins", "policies", "defaults")
_NO_DEFAULTS = {
    "plugins": "is no default: plugins for every recipe stand under `plugins` at the top of the file.",
    "policies": "is no default: policies for every recipe stand under `policies` at the top of the file.",
    "extends": "is no default: a house file extends no recipe.",
}


@dataclass(frozen=True, slots=True)
class House:
    """The house file that holds for a recipe, or none."""

    file: Path | None = None
    sha256: str = ""
    tree: Tree = field(default_factory=lambda: Tree({}))
    """What it says, and where."""
    given: tuple[str, ...] | None = None
    """The defaults that a recipe has of it; None where no recipe is loaded."""
    gives_way: tuple[str, ...] = ()
    """A sentence for each of its defaults that a recipe replaces by what another key says, or that is set aside."""
    blocked: frozenset[str] = frozenset()
    """Plugins that ``--no-plugin`` leaves out."""

    def in_effect(self, tree: Tree, set_aside: Iterable[str] = ()) -> House:
        """Return it with those of its defaults that stand in a whole recipe, which may say otherwise.

        `set_aside` are sentences about those that were taken out of it.
        """
        kept = {*tree.origins.values()}
        lines = {path: self.tree.origins.get(("defaults", *path)) for path in self._default_paths()}
        given = tuple(dotted(path) for path, line in lines.items() if line in kept)
        return replace(self, given=given, gives_way=(*set_aside, *self._replaced(tree)))

    def _replaced(self, tree: Tree) -> Iterator[str]:
        """Yield a sentence for each default that is gone for what the recipe says elsewhere, of the same thing."""
        from sftplug.recipe.model import Recipe

        own, train = self.tree.data.get("defaults", {}), tree.data.get("train") or {}
        for section, options in Recipe.stands_in_for.items():
            said = next((name for name in options if ("train", name) in tree.origins and name in train), None)
            if section in own and tree.data.get(section) is None and said is not None:
                yield self._gives_way((section,), f"`train.{said}`", tree.origins["train", said])
            mine = own.get("train", {})
            lost = [name for name in options if name in mine and name not in train] if isinstance(mine, dict) else []
            if tree.data.get(section) is not None and section not in own:
                line = origin_of(tree, (section,))
                yield from (self._gives_way(("train", name), f"`{section}`", line) for name in lost)

    def _gives_way(self, path: Path_, to: str, line: str) -> str:
        mine = origin_of(self.tree, ("defaults", *path))
        return f"the default `{dotted(path)}` ({mine}) gives way to {to} of the recipe ({line}), which decides the same"

    def _default_paths(self) -> list[Path_]:
        return [path for path, _ in leaves(self.tree.data.get("defaults", {})) if path]

    @property
    def plugins(self) -> list[str]:
        """The plugins that are in use for every recipe, as the file names them."""
        named = self.tree.data.get("plugins", [])
        return [str(name) for name in ([named] if isinstance(named, str) else named)]

    @property
    def has_policies(self) -> bool:
        """Whether it puts policies in force."""
        return bool(self.tree.data.get("policies"))

    def defaults(self) -> Tree:
        """Return what is laid beneath recipes."""
        return _below(self.tree, "defaults")

    def policies(self) -> Tree:
        """Return the section of policies, as a recipe would have it."""
        found = {"policies": self.tree.data["policies"]} if "policies" in self.tree.data else {}
        return Tree(found, self.tree.origins)

    def is_origin(self, origin: str) -> bool:
        """Whether a value of this origin is one of the file's."""
        return self.file is not None and origin.rpartition(":")[0] == self.file.name

    def record(self) -> dict[str, Any] | None:
        """Return what the record of a run keeps of it; None where no file holds."""
        if self.file is None:
            return None
        defaults = [*map(dotted, self._default_paths())] if self.given is None else [*self.given]
        policies = self.tree.data.get("policies", [])
        file = str(self.file.resolve())
        return {
            "file": file,
            "sha256": self.sha256,
            "plugins": self.plugins,
            "policies": policies,
            "defaults": defaults,
        }

    def told(self) -> list[str]:
        """Return a sentence that says which file holds, and what it does."""
        known = self.record()
        if known is None:
            return []
        policies = known["policies"] if isinstance(known["policies"], list) else [known["policies"]]
        left_out = [name for name in known["plugins"] if _plugin_name(name) in self.blocked]
        parts = [
            _count(len(known["plugins"]) - len(left_out), "plugin", "plugins"),
            _count(len(policies), "policy", "policies"),
            _count(len(known["defaults"]), "default", "defaults"),
        ]
        without = f"; left out by {argument('--no-plugin')}: {', '.join(left_out)}" if left_out else ""
        said = ", ".join(filter(None, parts)) or "nothing"
        return [f"the house file {self.file} is in force: {said}{without}", *self.gives_way]


def _plugin_name(entry: str) -> str:
    return Path(entry).stem if entry.endswith(".py") else entry


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""


def _below(tree: Tree, key: str) -> Tree:
    """Return what is under a key, as a tree of its own."""
    data = tree.data.get(key, {})
    origins = {path[1:]: origin for path, origin in tree.origins.items() if path[:1] == (key,)}
    return Tree({name: value for name, value in data.items() if name not in _NO_DEFAULTS}, origins)


# --- find -------------------------------------------------------------------------------------------------------------


def house_above(folder: Path, recipe: Path | None = None) -> House:
    """Return the house file that ``SFTPLUG_CONFIG`` names, else the one in `folder` or the nearest folder above.

    `recipe` is the recipe's own file, whose owner is trusted as the recipe is. Raises RecipeError for a file that says
    what it may not, or that is found and belongs to somebody else.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return _read(_file_of(named)) if named.strip() else House()
    file = next((place / HOUSE for place in _upwards(folder) if (place / HOUSE).is_file()), None)
    if file is None:
        return House()
    _refuse_strangers(file, recipe)
    return _read(file)


def _file_of(named: str) -> Path:
    """Return the file that the environment names. Raises RecipeError where that is not a file."""
    file = Path(named).expanduser()
    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise RecipeError(VARIABLE, [Problem("the house file", f"{file}, which {VARIABLE} names, {what}.")])
    return file


def _upwards(folder: Path) -> Iterator[Path]:
    here = folder.absolute().resolve()
    yield from (here, *here.parents)


def _refuse_strangers(file: Path, recipe: Path | None) -> None:
    """Refuse a file that whoever runs this did not write, nor who wrote the recipe, nor the machine's administrator."""
    if not hasattr(os, "getuid"):  # Windows
        return
    trusted = {os.getuid(), 0, *([recipe.stat().st_uid] if recipe is not None else [])}
    if file.stat().st_uid not in trusted:
        text = (
            f"{file} belongs to another user than the recipe, and it may name code that runs. Set {VARIABLE}={file} to "
            f"follow it, or {VARIABLE}= (to nothing) to leave it out."
        )
        raise RecipeError(str(file), [Problem("house file", text, file.name)])


def house_of_record(recipe: Path) -> House:
    """Return the house file that holds for a run: as for any recipe, else the one under which the run was begun."""
    found = house_above(recipe.parent, recipe)
    if found.file is not None or VARIABLE in os.environ:
        return found
    with suppress(OSError, ValueError, KeyError, TypeError):  # of an older version, or damaged, which others say
        file = Path(json.loads((recipe.parent / "run.json").read_text(encoding="utf-8"))["house"]["file"])
        if file.is_file():
            _refuse_strangers(file, recipe)
            return _read(file)
    return found


def read_house(file: str | None) -> House:
    """Return the house file that another process was begun under; of no file, no house."""
    return _read(Path(file)) if file else House()


def _read(file: Path) -> House:
    tree, content = read_toml(file)
    problems = list(_problems(tree))
    if problems:
        raise RecipeError(str(file), problems)
    return House(file, hashlib.sha256(content).hexdigest(), tree)


def _problems(tree: Tree) -> Iterator[Problem]:
    """Yield what is wrong with the file, as far as that is known without plugins."""
    for key, value in tree.data.items():
        if key not in KEYS:
            section = " Values for recipes stand under `defaults`." if _is_section(key) else ""
            hint = section or did_you_mean(key, KEYS)
            yield problem_at(tree, (key,), f"unknown key.{hint} Known: {', '.join(sorted(KEYS))}.")
        elif key == "plugins":
            yield from _no_texts(tree, value)
        elif key == "defaults":
            yield from _no_defaults(tree, value)


def _is_section(key: str) -> bool:
    from sftplug.recipe.model import Recipe

    return key in Recipe.model_fields


def _no_texts(tree: Tree, value: Any) -> Iterator[Problem]:
    if not isinstance(value, str | list):
        yield problem_at(tree, ("plugins",), f"must be a list of names and files, not {value!r}.")
        return
    for index, name in enumerate([] if isinstance(value, str) else value):
        if not isinstance(name, str):
            yield problem_at(tree, ("plugins", index), f"must be a name or a file, not {name!r}.")


def _no_defaults(tree: Tree, value: Any) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield problem_at(tree, ("defaults",), f"must be a table of a recipe's sections, not {value!r}.")
        return
    for key in value.keys() & _NO_DEFAULTS.keys():
        yield problem_at(tree, ("defaults", key), _NO_DEFAULTS[key])
    for key in value:
        if not _is_section(key) and is_train_option(key):
            text = f"is an option of the trainer: write it into `[defaults.train]`, as `defaults.train.{key}`."
            yield problem_at(tree, ("defaults", key), text)
