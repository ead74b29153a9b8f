"""Everything of the plugin API that will go: since which version, what to use instead, and when it is removed.

This is the one place. A hook, an argument of a hook and an option take their words from `words`, a name of the package
is looked up here by `old_name`, a field of one of its classes is kept by `keep_field`; a test fails as soon as the
version is reached in which something was to be removed.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class ApiDeprecationWarning(DeprecationWarning):
    """A plugin uses something of sftplug's API that will be removed; pytest shows it, with file and line."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """One thing that will be removed."""

    what: str
    """As its users write it: ``sftplug.Old``, ``sftplug_old``, ``sftplug_run_failed(error)``, ``adapter.lora.old``."""
    since: str
    """The first version that warns."""
    removed_in: str
    """The version in which it is gone; two minor versions later at the least."""
    instead: str
    """What to do: an imperative sentence, without its full stop."""
    renamed: str | None = None
    """For a name of the package, or a field of one of its classes: the name that stands for the same thing now."""

    def __str__(self) -> str:
        return f"{self.what} is deprecated since sftplug {self.since} and goes in {self.removed_in}. {self.instead}."


DEPRECATIONS: tuple[Deprecation, ...] = (
    Deprecation("sftplug.Size", "0.2", "0.4", "Use `sftplug.ParameterCounts`", renamed="ParameterCounts"),
    Deprecation("sftplug.measure", "0.2", "0.4", "Use `sftplug.count_parameters`", renamed="count_parameters"),
    Deprecation("sftplug.TokenBatch.item", "0.2", "0.4", "Use `content_part`", renamed="content_part"),
)
"""All of them, the oldest first."""


def words(what: str, listed: Iterable[Deprecation] = DEPRECATIONS) -> str:
    """Return what to say of `what`; of an option, for ``Field(deprecated=…)``. Raises KeyError if it is not listed."""
    return str({item.what: item for item in listed}[what])


def warning(what: str, listed: Iterable[Deprecation] = DEPRECATIONS) -> ApiDeprecationWarning:
    """Return the warning for pluggy's ``warn_on_impl`` and ``warn_on_impl_args``. Raises KeyError as `words` does."""
    return ApiDeprecationWarning(words(what, listed))


def old_name(module: str, name: str, listed: Iterable[Deprecation] = DEPRECATIONS) -> Any:
    """Return what a deprecated `name` of `module` stands for, with a warning; for the module's ``__getattr__``.

    Raises AttributeError, as Python does, for any other name.
    """
    owner = sys.modules[module]
    found: Mapping[str, Deprecation] = {item.what: item for item in listed if item.renamed}
    deprecation = found.get(f"{module}.{name}")
    if deprecation is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=owner)
    # The third frame is the plugin's line: before it come this function and the module's `__getattr__`.
    warnings.warn(str(deprecation), ApiDeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(module), str(deprecation.renamed))


def keep_field(owner: type[Any], what: str, listed: Iterable[Deprecation] = DEPRECATIONS) -> None:
    """Let a renamed field of the dataclass `owner` be read, and given to it, by its old name too, with a warning.

    Raises KeyError if `what`, as in ``sftplug.TokenBatch.item``, is not listed.
    """
    deprecation = {item.what: item for item in listed}[what]
    old, new, made = what.rpartition(".")[2], str(deprecation.renamed), owner.__init__

    def read(self: Any) -> Any:
        warnings.warn(str(deprecation), ApiDeprecationWarning, stacklevel=2)
        return getattr(self, new)

    @functools.wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if old in kwargs:
            warnings.warn(str(deprecation), ApiDeprecationWarning, stacklevel=2)
            kwargs[new] = kwargs.pop(old)
        made(self, *args, **kwargs)

    setattr(owner, old, property(read))
    owner.__init__ = init


def overdue(version: str, listed: Iterable[Deprecation] = DEPRECATIONS) -> list[str]:
    """Return what was to be removed in `version` or before, and is listed still."""
    return [item.what for item in listed if _release(item.removed_in) <= _release(version)]


def too_soon(listed: Iterable[Deprecation] = DEPRECATIONS) -> list[str]:
    """Return what would be removed less than two minor versions after the first warning."""
    found = []
    for item in listed:
        (major, minor, *_), (to_major, to_minor, *_) = _release(item.since), _release(item.removed_in)
        if to_major == major and to_minor < minor + 2:
            found.append(item.what)
    return found


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in version.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))
