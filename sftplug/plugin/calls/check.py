"""What every call has in common: the answer is looked at, and a sentence about a component goes with its plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sftplug.plugin.errors import plugin_error, plugin_errors
from sftplug.util.frozen import frozen
from sftplug.util.redact import redact

if TYPE_CHECKING:
    from sftplug.plugin.components import Component
    from sftplug.recipe.model import Recipe


def component_problems(component: Component, recipe: Recipe) -> list[str]:
    """Return what ``check`` of a component says about `recipe`. Raises PluginError for anything but sentences."""
    with plugin_errors(component, "check"):
        return sentences(component, "check", component.check(read_only(recipe)))


def read_only(recipe: Recipe) -> Recipe:
    """Return the recipe as a component gets it: to look at. The components in it are the very same objects."""
    from sftplug.plugin.components import Component

    return frozen(recipe, whole=lambda part: isinstance(part, Component))


def sentences(component: Component, method: str, said: Iterable[str]) -> list[str]:
    """Return what a method says. Raises PluginError for anything but sentences."""
    # A string is iterable too: each of its letters would be a problem.
    found = [said] if isinstance(said, str) or not isinstance(said, Iterable) else list(said)
    for sentence in found:
        if not isinstance(sentence, str) or said is sentence:
            raise plugin_error(
                component, method, f"must yield sentences, or return a list of them, not {kind_of(said)}"
            )
    return [redact(sentence) for sentence in found]


def checked(component: Component, method: str, answer: object, kind: Any, wanted: str) -> Any:
    """Return `answer` if it is of `kind`. Raises PluginError saying what was `wanted`."""
    if isinstance(answer, kind):
        return answer
    raise plugin_error(component, method, f"must return {wanted}, not {kind_of(answer)}")


def kind_of(answer: object) -> str:
    """Return what to call an object in a sentence: a class is named, anything else by its class."""
    return f"the class {answer.__name__}" if isinstance(answer, type) else type(answer).__name__
