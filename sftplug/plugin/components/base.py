"""What every kind of component is: its options, under a name."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict

from sftplug.util.strict_model import StrictModel

if TYPE_CHECKING:
    from sftplug.recipe.model import Recipe


class Component(StrictModel, ABC):
    """Base of every kind. Subclass a kind, not this."""

    # A plugin's default of the wrong type is found before it does harm.
    model_config = ConfigDict(validate_default=True)

    type: str
    """The name that recipes use; a subclass narrows it to a ``Literal`` with a default."""

    shorthand: ClassVar[str | None] = None
    """The option that ``{name: value}`` sets in a recipe, so that ``roles: [user]`` can be written."""

    variants: ClassVar[Mapping[str, str]] = {}
    """Names under which people know it with certain options -> these as a recipe has them: ``{"dora": "dora: true"}``.
    They are no names of their own: a recipe that uses one is told what to write."""

    def check(self, recipe: Recipe) -> Iterable[str]:
        """Yield a sentence for everything in `recipe` that does not go together with this component.

        Called before anything is downloaded or loaded; must be quick and must not import a heavy library.
        """
        return ()


@dataclass(frozen=True, slots=True)
class Deferred:
    """A component class that is made when a recipe names it.

    For a plugin that offers everything of a large library: to list the names must cost nothing, and only the one that
    is chosen need be made.
    """

    name: str
    """The name that recipes use."""
    make: Callable[[], type[Component]]
    """Returns the class; called at most once in a process."""
    library: str
    """The library whose it is; what it offers is known only where it is installed."""
