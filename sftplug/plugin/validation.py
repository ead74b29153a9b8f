"""What a plugin must be before it is used: built for this sftplug, and every hook in it one that is called."""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from importlib.metadata import Distribution
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sftplug.errors import PluginError, did_you_mean
from sftplug.plugin import hookspecs
from sftplug.plugin.errors import place_of

if TYPE_CHECKING:
    from sftplug.plugin.components import Component

_MARK = f"{hookspecs.PROJECT}_impl"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
HOOK_NAMES = tuple(name for name in vars(hookspecs) if name.startswith("sftplug_"))


def refuse_other_versions(distribution: Distribution) -> None:
    """Raise PluginError when `distribution` requires a sftplug that this is not: both versions are named."""
    from packaging.requirements import InvalidRequirement, Requirement

    version = _sftplug().__version__
    for line in distribution.requires or ():
        try:
            required = Requirement(line)
        except InvalidRequirement:
            continue  # pip would not have installed it; what it says of sftplug cannot be known
        applies = required.marker is None or required.marker.evaluate({"extra": ""})
        # Else a development version of sftplug (0.3.dev1) would fit nothing but what names it.
        fits = required.specifier.contains(version, prereleases=True)
        if required.name.lower() == "sftplug" and applies and not fits:
            raise PluginError(
                f"it is built for sftplug {required.specifier}, and this is sftplug {version}. "
                f"Run: pip install 'sftplug{required.specifier}', or install a version of it that fits."
            )


def explain_import_error(error: BaseException) -> str:
    """Return what to add to an import error: which name of sftplug is not there, and which was probably meant."""
    missing = None
    if isinstance(error, ImportError) and error.name == "sftplug":
        missing = re.search(r"cannot import name '(\w+)'", str(error))
    if isinstance(error, AttributeError) and error.obj is _sftplug():
        missing = re.search(r"no attribute '(\w+)'", str(error))
    if missing is None:
        return ""
    return f" {_newer(f'`{missing[1]}`')}{did_you_mean(missing[1], _sftplug().__all__)}"


def _newer(what: str) -> str:
    version = _sftplug().__version__
    return f"sftplug {version}, which is installed, has no {what}; the plugin may be built for another version."


def _sftplug() -> Any:
    """Return the package itself, which this module is a part of and must not import."""
    return sys.modules["sftplug"]


_NAME = re.compile(r"[\w-]+")


def problem_of_class(component: type[Component]) -> str | None:
    """Return why a recipe could not choose `component`, as the end of a sentence; None if it can."""
    from sftplug.plugin.components import Head, RecipeSection, RowProcessor
    from sftplug.types.ledger import STAGES

    if inspect.isabstract(component):
        missing = ", ".join(f"{name}()" for name in sorted(component.__abstractmethods__))
        return f"does not define {missing}"
    name = component_name(component)
    if not isinstance(name, str):
        return "has no name: give it `type: Literal['name'] = 'name'`"
    if issubclass(component, Head) and component.takes == "states" and component.nll is Head.nll:
        return "takes states and does not define nll()"
    if issubclass(component, RowProcessor) and name in STAGES:
        return f"is named {name!r}, as the ledger calls rows that end elsewhere: choose another name"
    if issubclass(component, RecipeSection):
        return problem_of_section(name)
    if name.lower() in _NO_TEXT or name == "type" or (issubclass(component, Head) and name == "auto"):
        return f"is named {name!r}, which means something else where a recipe would choose it: choose another name"
    return None if _NAME.fullmatch(name) else f"is named {name!r}: use letters, digits, `_` and `-`"


# fmt: off
CORE_SECTIONS = frozenset((
    "adapter", "callbacks", "chat_template", "data", "evaluation", "export", "extends", "launch", "loss", "masking",
    "model", "optimizer", "output", "patches", "plugins", "policies", "quantization", "schedule", "spans", "train",
))
"""The keys of a recipe that sftplug itself reads."""
_MEANT_OTHERWISE = frozenset((
    "alternatives", "components", "located_components", "own_sections", "section", "shorthand", "stands_in_for",
))
"""What Python code calls on a recipe, beside what it calls on every pydantic model."""
# fmt: on
_OF_RECIPES = {
    "type": "says which component is meant",
    "name": "is the recipe's own, as in `output: runs/{name}`",
}
"""Words that mean something else in a recipe."""
_NO_TEXT = frozenset(("null", "true", "false"))
"""What YAML reads as no text, in any spelling."""


def problem_of_section(name: str) -> str | None:
    """Return why a recipe could not have a section of that name beside its own; None if it can."""
    from pydantic import BaseModel

    if name in CORE_SECTIONS:
        return f"is named {name!r}, as a section of sftplug's own is: choose another name"
    if name in _OF_RECIPES:
        return f"is named {name!r}, which {_OF_RECIPES[name]}: choose another name"
    if name.lower() in _NO_TEXT or keyword.iskeyword(name):
        return f"is named {name!r}, which no recipe or no Python code can write: choose another name"
    needed = name in _MEANT_OTHERWISE or hasattr(BaseModel, name)
    if needed or name.startswith(("_", "model_")) or not name.isidentifier():
        return f"is named {name!r}: use letters, digits and `_`, and a letter first, and no name that Python code needs"
    return None


def component_name(component: type[Component]) -> Any:
    """Return the name under which recipes choose `component`: the default of its ``type`` field."""
    return component.model_fields["type"].default


def verify_hooks(module: ModuleType) -> None:
    """Raise PluginError for the first hook of `module` that would never be called, or not as it is written."""
    marked = {name: value for name, value in inspect.getmembers(module) if _options(value) is not None}
    for name, function in vars(module).items():
        if name in HOOK_NAMES and name not in marked and inspect.isroutine(function):
            raise PluginError(f"{name}() is not marked with @sftplug.hookimpl ({place_of(function)})")
    if not marked:
        raise PluginError("it implements no hook. Mark its functions with @sftplug.hookimpl.")
    for name, function in marked.items():
        _verify_hook(_options(function)["specname"] or name, function)


def _options(value: Any) -> Any:
    return getattr(value, _MARK, None) if inspect.isroutine(value) else None


def _verify_hook(name: str, function: Any) -> None:
    options = _options(function)
    if name not in HOOK_NAMES:
        if options["optionalhook"]:
            return
        known = did_you_mean(name, HOOK_NAMES) or f" Known: {', '.join(HOOK_NAMES)}."
        raise PluginError(f"unknown hook '{name}' ({place_of(function)}).{known} {_newer('such hook')}")
    if options["wrapper"] or options["hookwrapper"]:
        text = "is a wrapper: a hook of sftplug offers or observes, and wraps no other"
        raise PluginError(f"{name}() {text} ({place_of(function)})")
    given = inspect.signature(getattr(hookspecs, name)).parameters
    for argument in inspect.signature(function).parameters.values():
        if argument.name not in given and argument.default is argument.empty and argument.kind not in _VARIADIC:
            called, hint = f"{name}({', '.join(given)})", did_you_mean(argument.name, given)
            text = f"takes '{argument.name}', but it is called as {called}.{hint}"
            raise PluginError(f"{name}() {text} ({place_of(function)})")
