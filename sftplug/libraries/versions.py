"""The libraries beneath: the versions that are supported, and an optional one imported at the moment it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType

from sftplug.errors import MissingLibraryError

_DECISIVE = ("torch", "trl", "transformers", "peft", "datasets", "accelerate", "bitsandbytes")
"""What labels and training depend on; the others say themselves when something is not there."""


@cache
def refuse_unsupported() -> None:
    """Raise MissingLibraryError when a library that decides what is trained has a version that is not supported.

    The ranges are those that sftplug was packaged with; nothing is imported.
    """
    if wrong := list(_unsupported()):
        raise MissingLibraryError("\n".join(wrong))


def _unsupported() -> Iterator[str]:
    from packaging.requirements import Requirement

    for line in requires("sftplug") or ():
        required = Requirement(line)
        applies = required.marker is None or required.marker.evaluate({"extra": ""})
        found = _version(required.name) if applies and required.name in _DECISIVE else None
        if found is not None and not required.specifier.contains(found, prereleases=True):
            known = f"{required.name}{_lowest_first(str(required.specifier))}"
            yield f"{required.name} {found} is installed, and sftplug supports {known}. Run: pip install '{known}'"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None  # whoever needs it says so


def _lowest_first(specifier: str) -> str:
    return ",".join(sorted(specifier.split(","), reverse=True))


def require(module: str, needed_by: str, install: str | None = None) -> ModuleType:
    """Return the imported `module`.

    `needed_by` is the component as the user knows it (``quantization nf4``), `install` the command that installs the
    library (default: ``pip install MODULE``). Raises MissingLibraryError when it is not installed, or when it is and
    cannot be imported.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != top:
            raise MissingLibraryError(
                f"{needed_by} needs {top}, which is installed but fails to import: {error}"
            ) from error
        command = install or f"pip install {top}"
        raise MissingLibraryError(
            f"{needed_by} needs the library {top}, which is not installed. Run: {command}"
        ) from error
    except ImportError as error:
        raise MissingLibraryError(
            f"{needed_by} needs {top}, which is installed but fails to import: {error}"
        ) from error
